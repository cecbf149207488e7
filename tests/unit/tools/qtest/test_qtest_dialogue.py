"""A session on the whole board, the models in this process: lines in, bytes out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import DeviceProcessError
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.names import MMIO_UART
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.devices.rtc.model import RtcMc146818
from kvmbox.remote.transport.direct import direct_channels
from kvmbox.tools.qtest import client_session as dialogue_module
from kvmbox.tools.qtest.bare_machine import BareMachine
from kvmbox.tools.qtest.client_session import Dialogue, IrqWatch
from kvmbox.wire import protocol as wire

BASE = int(datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC).timestamp())
MEMORY = 2 << 20
UART = layout.MMIO_UART_BASE


class Board:
    """A session, and what it sent."""

    def __init__(self, memory_size: int = MEMORY) -> None:
        self.sent: list[bytes] = []
        self.memory = GuestMemory(memory_size)
        board = pc_board(
            BoardOptions(
                serial_ports=("COM1", "COM2", MMIO_UART), rtc_base=BASE, memory_size=self.memory.size
            )
        )
        irqs = IrqWatch()
        self.machine = BareMachine(board, self.memory, irqs.changed)
        channels = direct_channels(
            board,
            self.machine.grants(),
            now=self.machine.clock,
            deadline_changed=self.machine.deadline_changed,
        )
        for channel, devices in channels:
            self.machine.connect(channel, devices)
        self.channels = {channel.device_type: channel for channel, _ in channels}
        self.session = Dialogue(self.machine, irqs, self.sent.append)

    def __call__(self, line: str) -> str:
        self.sent.clear()
        self.session.handle(line.encode())
        text = b"".join(self.sent).decode()
        assert text.endswith("\n")
        return text[:-1]

    def rtc(self, index: int) -> int:
        self(f"outb 0x70 {index}")
        return int(self("inb 0x71").split()[1], 16)

    def set_rtc(self, index: int, value: int) -> str:
        self(f"outb 0x70 {index}")
        return self(f"outb 0x71 {value}")


@pytest.fixture
def board() -> Board:
    return Board()


# --- Ports ---------------------------------------------------------------------------------------------


def test_port_that_nothing_answers_reads_all_ones_of_its_size(board: Board) -> None:
    assert board("inb 0x1f0") == "OK 0x00ff"
    assert board("inw 0x1f0") == "OK 0xffff"
    assert board("inl 0x1f0") == "OK 0xffffffff"
    assert board("outl 0x1f0 0") == "OK"


def test_wide_access_is_byte_accesses_low_byte_first(board: Board) -> None:
    assert board("outw 0x70 0x550f") == "OK"  # index 0x0f, then data 0x55
    assert board.rtc(0x0F) == 0x55
    assert board("inw 0x70") == "OK 0x55ff"
    board("outb 0x3ff 0x5a")
    assert board("inl 0x3fd") == "OK 0xff5ab060"  # LSR, MSR, SCR, and nobody at 0x400


def test_last_port_wraps_as_a_byte_access(board: Board) -> None:
    assert board("inw 0xffff") == "OK 0xffff"


def test_com1_com2_and_the_memory_mapped_uart_are_there_and_com3_is_not(board: Board) -> None:
    assert board("inb 0x3fd") == "OK 0x0060"
    assert board("inb 0x2fd") == "OK 0x0060"
    assert board(f"readb {UART + 5}") == "OK 0x0000000000000060"
    assert board("inb 0x3ed") == "OK 0x00ff"


def test_debug_exit_and_shutdown_ports_end_nothing(board: Board) -> None:
    assert board("outl 0xf4 0x1234") == "OK"
    for character in b"Shutdown":
        assert board(f"outb 0x8900 {character}") == "OK"
    assert board("endianness") == "OK little"


# --- Memory --------------------------------------------------------------------------------------------


def test_memory_is_read_and_written_little_endian(board: Board) -> None:
    assert board("writeq 0x1000 0x1122334455667788") == "OK"
    assert board("readb 0x1000") == "OK 0x0000000000000088"
    assert board("readw 0x1001") == "OK 0x0000000000006677"
    assert board("readl 0x1004") == "OK 0x0000000011223344"
    assert board("read 0x1000 9") == "OK 0x887766554433221100"
    assert board("write 0x1002 2 0xabcd") == "OK"
    assert board("b64write 0x1004 1 AQ==") == "OK"
    assert board("memset 0x1006 0x3 0xee") == "OK"
    assert board("read 0x1000 9") == "OK 0x8877abcd0133eeeeee"
    assert board("b64read 0x1000 4") == "OK iHerzQ=="
    assert board("memset 0x1000 0 1") == "OK"


def test_address_that_nothing_answers_reads_all_ones_and_takes_writes(board: Board) -> None:
    assert board("writeq 0xfee00000 0") == "OK"
    assert board("readq 0xfee00000") == "OK 0xffffffffffffffff"
    assert board("readq 0xffffffffffffffff") == "OK 0xffffffffffffffff"
    assert board("memset 0 0xffffffffffffffff 0x11") == "OK"  # all RAM, the UART, and nothing else
    assert board(f"readl {MEMORY - 4}") == "OK 0x0000000011111111"
    assert board(f"readq {MEMORY - 4}") == "OK 0xffffffff11111111"
    assert board(f"readb {UART + 7}") == "OK 0x0000000000000011"


def test_memory_mapped_uart_is_accessed_byte_by_byte(board: Board) -> None:
    assert board(f"writeb {UART + 7} 0x5a") == "OK"
    assert board(f"readl {UART + 5}") == "OK 0x00000000ff5ab060"
    assert board(f"read {UART - 1} 10") == "OK 0xff000001000060b05aff"
    board(f"writew {UART + 6} 0x3300")
    assert board(f"readb {UART + 7}") == "OK 0x0000000000000033"


def test_memory_above_the_hole_is_above_the_hole() -> None:
    board = Board(layout.MMIO_HOLE_START + (1 << 20))
    assert board(f"writel {layout.MMIO_HOLE_END} 0x01020304") == "OK"
    assert board(f"readl {layout.MMIO_HOLE_END}") == "OK 0x0000000001020304"
    assert board(f"read {layout.MMIO_HOLE_END - 2} 4") == "OK 0xffff0403"


# --- Time ----------------------------------------------------------------------------------------------


def test_issue_example_gives_its_answers(board: Board) -> None:
    assert [board(line) for line in ("outb 0x70 0x0d", "inb 0x71", "clock_step 1000000000")] == [
        "OK",
        "OK 0x0080",
        "OK 1000000000",
    ]


def test_clock_moves_by_command_only(board: Board) -> None:
    assert board("clock_step 10") == "OK 10"
    assert board("inb 0x3fd") == "OK 0x0060"
    assert board("clock_step 1") == "OK 11"
    assert board("clock_set 11") == "OK 11"
    assert board("clock_set 10") == "FAIL 11"
    assert board("clock_set 1000") == "OK 1000"


@pytest.mark.parametrize("amount", ["0", "-1", "9223372036854775807"])
def test_clock_step_that_goes_nowhere_fails(board: Board, amount: str) -> None:
    board("clock_step 1")
    assert board(f"clock_step {amount}") == "FAIL could not advance time"
    assert board("clock_step 1") == "OK 2"


def test_clock_step_alone_goes_to_the_next_deadline(board: Board) -> None:
    # Counter 0 counts from 65536 in mode 3: OUT falls after 32768 pulses of 1,193,182 Hz.
    assert board("clock_step") == f"OK {-(-32768 * 10**9 // 1193182)}"
    assert board("clock_step") == f"OK {-(-65536 * 10**9 // 1193182)}"


def test_clock_step_alone_without_a_deadline_fails(board: Board) -> None:
    board("outb 0x43 0x30")  # mode 0 without a count
    board.set_rtc(0x0B, 0x82)  # SET: no update
    answer = board("clock_step")
    assert answer == "FAIL cannot advance clock to the next deadline because there is no pending deadline"


@pytest.mark.parametrize("watched", [False, True])
def test_time_shows_the_same_whether_lines_are_watched_or_not(watched: bool) -> None:
    board = Board()
    if watched:
        board("irq_intercept_in ioapic")
    board("outb 0x43 0x34")
    board("outb 0x40 0x00")
    board("outb 0x40 0x80")
    board("clock_step 107000000123")
    assert [board.rtc(index) for index in (4, 2, 0, 0x0C)] == [0x22, 0x15, 0x07, 0x50]
    board("outb 0x43 0")
    count = 0x8000 - 107000000123 * 1193182 // 10**9 % 0x8000
    assert [board("inb 0x40") for _ in range(2)] == [f"OK 0x00{count & 0xFF:02x}", f"OK 0x00{count >> 8:02x}"]


def test_century_without_watching_costs_one_step(board: Board) -> None:
    century = 100 * 365 * 86400 * 10**9
    assert board(f"clock_set {century}") == f"OK {century}"
    assert board.rtc(9) == 0x23
    assert board.rtc(0x32) == 0x21


# --- Interrupt lines -----------------------------------------------------------------------------------


def test_lines_are_told_only_after_they_are_intercepted(board: Board) -> None:
    board("outb 0x3fc 8")
    assert board("outb 0x3f9 2") == "OK"
    board("outb 0x3f9 0")
    assert board("irq_intercept_in ioapic") == "OK"
    assert board("outb 0x3f9 2") == "IRQ raise 4\nOK"
    assert board("inb 0x3fa") == "IRQ lower 4\nOK 0x0002"


def test_line_that_is_high_when_it_is_intercepted_is_told_of_when_it_rises_again(board: Board) -> None:
    board("outb 0x3fc 8")
    board("outb 0x3f9 2")
    board("irq_intercept_in ioapic")
    assert board("inb 0x3fa") == "OK 0x0002"
    assert board("outb 0x3f8 0x41") == "IRQ raise 4\nOK"


def test_each_device_has_its_line(board: Board) -> None:
    board("irq_intercept_in ioapic")
    board("outb 0x3fc 8")
    board("outb 0x2fc 8")
    board(f"writeb {UART + 4} 8")
    assert board("outb 0x3f9 2") == "IRQ raise 4\nOK"
    assert board("outb 0x2f9 2") == "IRQ raise 3\nOK"
    assert board(f"writeb {UART + 1} 2") == "IRQ raise 5\nOK"
    assert board("outb 0x64 0xaa") == "IRQ raise 1\nOK"
    assert board("outb 0x43 0x30").splitlines()[-1] == "OK"
    board("outb 0x40 10")
    assert "IRQ raise 0" in board("outb 0x40 0") + board("clock_step 1000000")
    assert board.set_rtc(0x0B, 0x12) == "OK"  # UIE
    assert board("clock_set 1000000000") == "IRQ raise 8\nOK 1000000000"


def test_pulse_within_one_request_is_told_in_order_before_the_answer(board: Board) -> None:
    board("irq_intercept_in ioapic")
    board("outb 0x3fc 8")
    board("outb 0x3f9 2")
    assert board("outb 0x3f8 0x41") == "IRQ lower 4\nIRQ raise 4\nOK"


def test_deadlines_on_the_way_fire_in_order_each_at_its_own_time() -> None:
    board = Board()
    board("irq_intercept_in ioapic")
    board("outb 0x43 0x36")  # mode 3
    board("outb 0x40 0xa9")
    board("outb 0x40 0xe9")  # 59817: a period of a twentieth second and 132 ns
    board.set_rtc(0x0A, 0x2D)  # 8 Hz
    board.rtc(0x0C)
    board.set_rtc(0x0B, 0x42)  # PIE
    times: list[tuple[int, str]] = []
    original = board.session._irqs.changed

    def changed(line: int, level: int) -> None:
        times.append((board.machine.now, f"{line}{'+' if level else '-'}"))
        original(line, level)

    board.machine._router.attach(changed)
    times.clear()
    text = board("clock_step 200000000").splitlines()
    assert text[-1] == "OK 200000000"
    assert [time for time, _ in times] == sorted({time for time, _ in times})
    half, period = -(-59817 // 2), 59817
    ns = [-(-n * 10**9 // 1193182) for n in (half, period, period + half, 2 * period)]
    pit = [(t, e) for t, e in times if e[0] == "0"]
    assert pit[:4] == [(t, "0-" if i % 2 == 0 else "0+") for i, t in enumerate(ns)]
    assert [t for t, e in times if e == "8+"] == [125_000_001]


def test_messages_of_a_long_step_are_sent_in_bounded_portions(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialogue_module, "MAX_MESSAGES", 4)
    board("irq_intercept_in ioapic")
    text = board("clock_step 1000000000").splitlines()
    assert len(board.sent) > 5
    assert all(part.count(b"\n") <= 4 for part in board.sent[:-1])
    assert text[-1] == "OK 1000000000"
    assert text[:-1] == [f"IRQ {'raise' if i % 2 == 0 else 'lower'} 0" for i in range(len(text) - 1)]


# --- Reset and failure -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [("outb 0x64 0xfe",), ("outb 0x92 1",)])
def test_reset_by_a_device_resets_all_devices_before_the_answer(board: Board, ask: tuple[str, ...]) -> None:
    board("irq_intercept_in ioapic")
    board("outb 0x3fc 8")
    board("outb 0x3f9 2")
    board("clock_step 5000000000")
    board("writeb 0x1000 1")
    for line in ask[:-1]:
        board(line)
    answer = board(ask[-1])
    assert "IRQ lower 4" in answer.splitlines()
    assert answer.splitlines()[-1] == "OK"
    assert board("inb 0x3f9") == "OK 0x0000"
    board("outb 0x3f9 1")
    assert board("inb 0x3f9") == "OK 0x0001"  # it was reset once
    assert board.rtc(0) == 0x25  # the battery keeps the clock, time goes on
    assert board("readb 0x1000") == "OK 0x0000000000000001"


def test_model_that_raises_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise IndexError("register\nlost")

    monkeypatch.setattr(RtcMc146818, "read", broken)
    board = Board()
    with pytest.raises(DeviceProcessError, match=r"device process 'rtc' failed: IndexError: register"):
        board("inb 0x71")
    with pytest.raises(DeviceProcessError, match="'rtc'"):
        board("outb 0x70 0")
    assert board("inb 0x3fd") == "OK 0x0060"


def test_model_that_reads_more_than_was_asked_breaks_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RtcMc146818, "read", lambda *_: 0x1FF)
    board = Board()
    with pytest.raises(DeviceProcessError, match=r"'rtc' broke the protocol: value 0x1ff"):
        board("inb 0x71")


class DueChannel:
    """A channel whose device has nothing to do once it was told the time, unless it is stubborn."""

    def __init__(self) -> None:
        self.deadline = wire.NO_DEADLINE
        self.advanced = 0
        self.stubborn = False

    def access(self, word: int, _offset: int, _value: int, _limit: int) -> int:
        if word & 0xFF == wire.ADVANCE:
            self.advanced += 1
            if not self.stubborn:
                self.deadline = wire.NO_DEADLINE
        return 0

    def request(self, kind: int) -> None:
        raise DeviceProcessError("pit", f"was asked for {kind}")


def test_deadline_that_a_request_leaves_in_the_present_fires_before_its_answer(board: Board) -> None:
    channel = DueChannel()
    board.machine.connect(channel, [])  # type: ignore[arg-type]  # a fake
    board("clock_step 10")
    channel.deadline = 10
    board.machine.deadline_changed("pit", 10, 10)
    board("inb 0x3fd")
    assert channel.advanced == 1
    board("inb 0x3fd")
    assert channel.advanced == 1


def test_device_that_stays_due_is_asked_in_the_way_that_names_it(board: Board) -> None:
    channel = DueChannel()
    board.machine.connect(channel, [])  # type: ignore[arg-type]  # a fake
    channel.stubborn, channel.deadline = True, 5
    with pytest.raises(DeviceProcessError, match=f"'pit' was asked for {wire.ADVANCE}"):
        board("clock_step 10")


@pytest.mark.parametrize("make", [Board, lambda: Board(64 << 20)])
def test_memory_size_is_in_cmos(make: Callable[[], Board]) -> None:
    board = make()
    assert board.rtc(0x17) | board.rtc(0x18) << 8 == board.memory.size // 1024 - 1024
