"""Bugs of other device models, by class: each happened to somebody, and each has its test here.

The docstring of a section says what went wrong there, and by which decision of the design it cannot here.
The models stand at their ports on the real board, without processes: what a guest can ask, these tests ask.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmbox.base import layout
from kvmbox.contract.device_spec import Medium, by_type
from kvmbox.contract.model import HostOutput, InputRoom
from kvmbox.contract.names import SERIAL_PORTS
from kvmbox.devices.bios.board import BootDrive
from kvmbox.devices.e1000.board import e1000_net
from kvmbox.devices.ide.board import IdeDrive, ide_board
from kvmbox.devices.pc_board import BoardOptions, whole_board
from kvmbox.devices.pci.board import with_pci
from kvmbox.devices.qcow2.board import disk_map
from kvmbox.devices.uart.registers import LSR_TEMT
from kvmbox.devices.virtio.board import virtio_blk, virtio_console, virtio_net, virtio_rng
from kvmbox.devices.virtio.pci_functions import on_pci
from tests.support.pc import Pc, rising_edges
from tests.support.work import footprint, lines_executed

SECOND = 1_000_000_000
YEAR = 365 * 86_400 * SECOND
COM1 = layout.COM_PORTS["COM1"]
SIZES = (1, 2, 4)


@pytest.fixture
def pc() -> Pc:
    return Pc()


# --- CVE-2015-3214, CVE-2010-0309: a read of a write-only port -------------------------------------------

WRITE_ONLY = {
    "PIT control word": layout.PIT_PORT + 3,
    "RTC index": layout.RTC_INDEX_PORT,
    "POST code": layout.POST_PORT,
    "debug-exit": layout.DEBUG_EXIT_PORT,
    "shutdown": layout.SHUTDOWN_PORT,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("port", WRITE_ONLY.values(), ids=WRITE_ONLY)
@pytest.mark.parametrize("control", [0x34, 0xC2, 0xE2, 0xFF], ids=hex)
def test_cve_2015_3214_and_2010_0309_read_of_a_write_only_port_is_a_constant(
    pc: Pc, port: int, size: int, control: int
) -> None:
    """QEMU's and KVM's 8254 took the two address bits of a read as the index of a counter. Port 0x43, which
    is only ever written, gave index 3 of three counters: memory behind the array, or a crash of the host.

    Here a model answers every offset, whatever was written before; what is write-only reads as documented
    (docs/devices), and reading it changes nothing.
    """
    pc.ports.write(layout.PIT_PORT + 3, 1, control)  # also latches counters, status, all of them
    pc.models["PIT"].take_effects()
    before = pc.state()
    first = pc.ports.read(port, 1)
    assert first in (0, 0xFF)
    for _ in range(4):
        value = pc.ports.read(port, size)
        assert value < 1 << 8 * size
        assert value & 0xFF == first
    if size == 1:  # a wider read reaches the neighbours, which may change by being read
        assert pc.state() == before


@pytest.mark.parametrize("offset", [3, 5, 6, 7, 255, 1 << 16, 1 << 32, (1 << 64) - 1, -1])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "name",
    [
        *("PIT", "RTC", "COM1", "i8042", "POST", "debugcon", "debug-exit", "shutdown"),
        *("debug-exit-501", "pvpanic", "reset-control", "fw_cfg", "testdev"),
    ],
)
def test_cve_2015_3214_and_2010_0309_offset_beyond_the_registers_is_no_index(
    pc: Pc, name: str, offset: int, size: int
) -> None:
    """The same bug one layer up: even an offset that the bus would never pass on gets an answer."""
    model = pc.models[name]
    assert 0 <= model.read(0, offset, size) < 1 << 8 * size
    model.write(0, offset, size, (1 << 8 * size) - 1)
    model.take_effects()
    assert model.snapshot()


# --- CVE-2016-8669: a divisor of 0, or huge --------------------------------------------------------------

DIVISORS = [0, 1, 2, 3, 12, 0x00FF, 0x0100, 0x7FFF, 0x8000, 0xFFFF]


@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("word", range(4), ids=lambda bits: f"{bits + 5} bits")
def test_cve_2016_8669_any_divisor_transmits_and_divides_by_nothing(divisor: int, word: int) -> None:
    """QEMU's UART computed a speed as base / divisor and then divided by that: a divisor of 0, or above the
    base, which any guest can set, ended the process with SIGFPE.

    Here the time of a character is a product (divisor × bits, integers only) and 0 counts as 1.
    """
    pc = Pc(pace=True)
    pc.ports.write(COM1 + 3, 1, 0x80 | word)
    pc.ports.write(COM1 + 0, 1, divisor & 0xFF)
    pc.ports.write(COM1 + 1, 1, divisor >> 8)
    assert pc.ports.read(COM1, 1) | pc.ports.read(COM1 + 1, 1) << 8 == divisor
    pc.ports.write(COM1 + 3, 1, word)
    pc.ports.write(COM1, 1, 0x15)
    deadline = pc.models["COM1"].next_deadline()
    # 16 clocks a bit of 1.8432 MHz, 7 to 12 bits a character: at most 6.9 s with the largest divisor.
    assert deadline is not None
    assert 0 < deadline < 10 * SECOND
    pc.now = deadline
    assert pc.ports.read(COM1 + 5, 1) & LSR_TEMT
    assert pc.effects("COM1") == [HostOutput(b"\x15")]


def test_cve_2016_8669_divisor_changed_while_characters_are_under_way() -> None:
    """The same, set in the middle of a character and with FIFOs full on both sides."""
    pc = Pc(pace=True)
    pc.ports.write(COM1 + 2, 1, 0x01)
    for divisor in DIVISORS:
        for character in b"in full flight":
            pc.ports.write(COM1, 1, character)
        pc.models["COM1"].receive(pc.now, b"x" * 16)
        pc.ports.write(COM1 + 3, 1, 0x83)
        pc.ports.write(COM1, 1, divisor & 0xFF)
        pc.ports.write(COM1 + 1, 1, divisor >> 8)
        pc.ports.write(COM1 + 3, 1, 0x03)
        pc.now += 1_000
        deadline = pc.models["COM1"].next_deadline()
        assert deadline is None or deadline > pc.now - 1_000
    pc.now += 10 * 60 * SECOND
    assert pc.ports.read(COM1 + 5, 1) & LSR_TEMT


# --- CVE-2020-27173: a receive buffer without bound ------------------------------------------------------


def test_cve_2020_27173_receive_buffer_has_the_chips_size(pc: Pc) -> None:
    """vm-superio's UART queued all the host's input, however much, while the guest did not read: whoever
    could send to the console could use up the host's memory.

    Here `receive` says how many bytes it took, at most a FIFO; the rest stays with the host, whose reader
    then stops reading (flow control), and hears of room by InputRoom.
    """
    uart = pc.models["COM1"]
    pc.ports.write(COM1 + 2, 1, 0x01)  # FIFOs on
    pc.ports.write(COM1 + 1, 1, 0x01)  # the guest listens
    assert uart.receive(0, b"y" * 1_000_000) == 16
    uart.take_effects()
    full = footprint(uart)
    for _ in range(1_000):
        assert uart.receive(0, b"more of it " * 100) == 0
    uart.take_effects()
    assert footprint(uart) == full
    for _ in range(16):
        assert pc.ports.read(COM1, 1) == ord("y")
    assert any(isinstance(effect, InputRoom) and effect.count <= 16 for effect in pc.effects("COM1"))


def test_cve_2020_27173_guest_that_never_listens_takes_nothing_in_its_stead(pc: Pc) -> None:
    """No device buffers for a guest that is not there, and devices without input refuse it."""
    for name, model in pc.models.items():
        before = footprint(model)
        assert model.receive(0, b"z" * 4096) <= 16, name
        model.take_effects()
        assert footprint(model) <= before + 200, name


# --- CVE-2015-3456 (VENOM): a device that nobody uses ----------------------------------------------------

FLOPPY = (0x3F0, 0x3F1, 0x3F2, 0x3F3, 0x3F4, 0x3F5, 0x3F7)


def test_cve_2015_3456_there_is_no_floppy_controller(pc: Pc) -> None:
    """VENOM: the floppy controller's FIFO overflowed by commands of a guest. It was in every machine, also
    in those without a drive, and could not be left out.

    Here nothing is on the board that no small guest uses, and what is not on the board has neither code in a
    process nor a port: reads give all ones, writes vanish, both are counted.
    """
    before = pc.state()
    for _ in range(600):  # VENOM wrote 512 bytes and more to the FIFO
        for port in FLOPPY:
            assert pc.ports.read(port, 1) == 0xFF
            pc.ports.write(port, 1, 0x8E)  # DRIVE SPECIFICATION, the command of the exploit
    assert pc.ports.unclaimed_reads == pc.ports.unclaimed_writes == 600 * len(FLOPPY)
    assert pc.state() == before


def test_cve_2015_3456_device_that_is_left_out_has_neither_port_nor_process() -> None:
    """Serial ports that were not asked for, and a debug-exit port that was switched off, are not there."""
    board = whole_board(
        BoardOptions(("COM1",), rtc_base=0, memory_size=layout.MIN_MEMORY, debug_exit_port=None)
    )
    claimed = {place.first for device in board for place in device.ports}
    assert not claimed & {layout.COM_PORTS["COM2"], layout.COM_PORTS["COM3"], layout.DEBUG_EXIT_PORT}
    assert not claimed & {layout.EXTRA_DEBUG_EXIT_PORT, layout.TESTDEV_PORT, layout.TESTDEV_IRQ_PORT}
    names = {name: [device.name for device in devices] for name, devices in by_type(board).items()}
    assert names["uart"] == ["COM1"]
    assert "debug-exit" not in names["debug"]
    # A process is started for each device type that has a device, and for no other.
    assert set(names) == {"uart", "pit", "rtc", "i8042", "debug", "pm", "hpet", "fwcfg", "vga"}
    assert all(names.values())
    no_serial = whole_board(BoardOptions((), rtc_base=0, memory_size=layout.MIN_MEMORY))
    assert "uart" not in by_type(no_serial)


def test_cve_2015_3456_every_model_of_the_catalogue_has_a_use() -> None:
    """No model lies about in device processes that no board wires."""
    from kvmbox.contract.catalog import MODELS

    board = whole_board(
        BoardOptions(
            SERIAL_PORTS,
            0,
            layout.MIN_MEMORY,
            testdev=True,
            has_bios=True,
            boot_drives=(BootDrive("disk", 8),),
        )
    )
    virtio = [
        virtio_blk(0, Medium("disk", 4096)),
        virtio_rng(),
        virtio_console(),
        virtio_net(0, bytes(6)),
    ]
    functions = with_pci([*(on_pci(device) for device in virtio), e1000_net(0, bytes(6))])
    optional = [*ide_board([IdeDrive("disk", 8), None, None, None]), disk_map("disk"), *virtio, *functions]
    assert {device.model for device in [*board, *optional]} == set(MODELS)


# --- CVE-2025-71104: a periodic timer that is late -------------------------------------------------------


def start_pit(pc: Pc) -> Callable[[], int]:
    """Counter 0 at its fastest: mode 2 and a count of 2, 596,591 ticks a second."""
    for port, value in ((3, 0x34), (0, 2), (0, 0)):
        pc.ports.write(layout.PIT_PORT + port, 1, value)
    pc.effects("PIT")
    return lambda: rising_edges(pc.effects("PIT"))


def start_rtc(pc: Pc) -> Callable[[], int]:
    """The periodic interrupt at its fastest, 8,192 a second, and the update-ended one."""
    for register, value in ((0x0A, 0x23), (0x0B, 0x52)):
        pc.ports.write(layout.RTC_INDEX_PORT, 1, register)
        pc.ports.write(layout.RTC_INDEX_PORT + 1, 1, value)
    pc.effects("RTC")
    return lambda: rising_edges(pc.effects("RTC"))


def start_uart(pc: Pc) -> Callable[[], int]:
    """A character that waits for its time-out, with the interrupt on."""
    pc.ports.write(COM1 + 4, 1, 0x08)
    pc.ports.write(COM1 + 2, 1, 0x81)
    pc.ports.write(COM1 + 1, 1, 0x01)
    pc.models["COM1"].receive(pc.now, b"a")
    pc.effects("COM1")
    return lambda: rising_edges(pc.effects("COM1"))


TIMERS = {"PIT": start_pit, "RTC": start_rtc, "COM1": start_uart}


@pytest.mark.parametrize("name", TIMERS)
def test_cve_2025_71104_late_timer_catches_up_at_once(name: str) -> None:
    """KVM's local APIC timer, periodic and late by days, moved its target on by one period at a time, with
    interrupts off: the host locked up.

    Here `advance` is arithmetic, and takes the same work for a millisecond and for a century (counted in
    lines of Python, not in time); what was missed is one edge with a number, not a burst.
    """
    work = []
    for jump in (SECOND, 86_400 * SECOND, YEAR, 100 * YEAR):
        pc = Pc()
        TIMERS[name](pc)
        model = pc.models[name]
        work.append(lines_executed(lambda at=jump, model=model: model.advance(at)))  # type: ignore[misc]
        assert len(model.take_effects()) <= 8
        deadline = model.next_deadline()
        assert deadline is None or deadline > jump
    assert max(work) <= 2 * min(work) + 50
    assert max(work) < 500


def test_cve_2025_71104_what_was_missed_is_counted_to_the_tick() -> None:
    """Coalesced is not lost: raised + coalesced is what an undisturbed timer would have raised."""
    late, punctual = Pc(), Pc()
    count_late, count_punctual = start_pit(late), start_pit(punctual)
    total = 0
    end = 2_000_000  # two milliseconds of guest time: 1,193 ticks
    while (deadline := punctual.models["PIT"].next_deadline()) is not None and deadline <= end:
        punctual.models["PIT"].advance(deadline)
        total += count_punctual()
    late.models["PIT"].advance(end)
    assert total > 1_000
    assert count_late() == total


def test_cve_2025_71104_many_late_timers_make_few_effects(pc: Pc) -> None:
    """A suspended machine wakes up: all devices at once, a year late, stay below one frame of effects."""
    for start in TIMERS.values():
        start(pc)
    pc.now = YEAR
    for model in pc.models.values():
        model.advance(pc.now)
    assert sum(len(model.take_effects()) for model in pc.models.values()) <= 20
