"""The console: which port's output goes where, who sees it, and how input waits for room."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvmbox.base.errors import ExpectError
from kvmbox.base.judge import Judge
from kvmbox.base.outcome import CLEAN, INTERRUPTED, KVMBOX_FAILED, UNEXPECTED, Outcome
from kvmbox.contract.names import BIOS_TEXT, KEYBOARD
from kvmbox.host.console import serial_ports as module
from kvmbox.host.console.captured_port import Capture
from kvmbox.host.console.duplicate_output import PATIENCE_TICKS
from kvmbox.host.console.escape_keys import HELP, EscapeParser
from kvmbox.host.console.input_port import INPUT_CHUNK, InputPort
from kvmbox.host.console.sent_input import Typed
from kvmbox.host.console.serial_backends import (
    DEBUGCON,
    KeyboardSpec,
    SerialSpec,
    parse_debugcon,
    serial_plan,
)
from kvmbox.host.console.serial_ports import BIOS_TEXT_KEPT, RECENT, Console


class Stdio:
    """Pipes in place of this process's stdin and stdout."""

    def __init__(self) -> None:
        self.stdin, self.keyboard = os.pipe()
        self.screen, self.stdout = os.pipe()
        self.messages, self.stderr = os.pipe()
        self.said: list[str] = []
        self.wakes = 0
        self.decision = Judge()

    def console(
        self,
        *options: str,
        expect: tuple[bytes, ...] = (),
        fail_on: tuple[bytes, ...] = (),
        limit: int | None = None,
        debugcon: str = "auto",
        bios: bool = False,
    ) -> Console:
        self.decision = Judge(expect, fail_on)
        return Console(
            serial_plan(list(options)),
            self.decision,
            debugcon=parse_debugcon(debugcon),
            limit=limit,
            bios=bios,
            say=self.said.append,
            wake=self.wake,
        )

    def wake(self) -> None:
        self.wakes += 1

    def shown(self, console: Console) -> bytes:
        """All that stdout got."""
        assert console.finish() is None
        return os.read(self.screen, 1 << 16) if any(stream.appended for stream in console.streams) else b""


@pytest.fixture
def stdio(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stdio]:
    pipes = Stdio()
    monkeypatch.setattr(module, "STDIN", pipes.stdin)
    monkeypatch.setattr(module, "STDOUT", pipes.stdout)
    monkeypatch.setattr(module, "STDERR", pipes.stderr)
    yield pipes
    for descriptor in (
        *(pipes.stdin, pipes.keyboard, pipes.screen, pipes.stdout),
        *(pipes.messages, pipes.stderr),
    ):
        os.close(descriptor)


def test_console_ports_share_stdout_in_the_order_of_the_output(stdio: Stdio) -> None:
    console = stdio.console()
    com1, debugcon, mmio = console.sink("COM1"), console.sink(DEBUGCON), console.sink("MMIO")
    com1(b"a")
    debugcon(b"b")
    mmio(b"c")
    com1(b"d")
    assert stdio.shown(console) == b"abcd"
    assert console.bytes_out == {"COM1": 2, DEBUGCON: 1, "MMIO": 1}


def test_console_notes_when_the_first_byte_came(stdio: Stdio) -> None:
    console = stdio.console("COM2=null")
    other, com1 = console.sink("COM2"), console.sink("COM1")
    other(b"x")
    assert console.first_byte_at is None
    com1(b"x")
    first = console.first_byte_at
    assert first is not None
    com1(b"y")
    assert console.first_byte_at == first
    console.finish()


def test_console_file_gets_its_own_port_only(stdio: Stdio, tmp_path: Path) -> None:
    path = tmp_path / "com2.log"
    console = stdio.console(f"COM2=file:{path}")
    console.sink("COM2")(b"to the file")
    console.sink("COM1")(b"to the screen")
    assert stdio.shown(console) == b"to the screen"
    console.close()
    console.close()
    assert path.read_bytes() == b"to the file"


def test_console_null_port_counts_and_shows_nothing(stdio: Stdio) -> None:
    console = stdio.console("COM1=null")
    console.sink("COM1")(b"nobody sees this")
    assert stdio.shown(console) == b""
    assert console.bytes_out == {"COM1": 16}
    assert console.inputs == []


def test_console_pty_is_announced_and_takes_input(stdio: Stdio) -> None:
    console = stdio.console("COM2=pty")
    (line,) = stdio.said
    assert line.startswith("COM2 is /dev/")
    port = next(port for port in console.inputs if port.name == "COM2")
    assert port.is_pty
    slave = os.open(line.split()[-1], os.O_RDWR | os.O_NOCTTY)
    console.read_input(port)  # nothing there yet: no wait, no end
    os.write(slave, b"hi")
    console.read_input(port)
    assert (bytes(port.pending), port.ended) == (b"hi", False)
    os.close(slave)
    console.read_input(port)
    assert not port.ended  # somebody may open it again
    console.finish()
    console.close()


# --- The screen -------------------------------------------------------------------------------------------


def test_screen_is_shown_behind_what_was_printed(stdio: Stdio) -> None:
    console = stdio.console()
    console.sink("COM1")(b"printed\n")
    console.show_screen(b"seen\n", None)
    assert stdio.shown(console) == b"printed\n\nseen\n"


def test_screen_is_shown_behind_what_was_withheld(stdio: Stdio) -> None:
    console = stdio.console()
    com1, debugcon = console.sink("COM1"), console.sink(DEBUGCON)
    com1(b"the same\n")
    debugcon(b"the sa")  # withheld: it may become the same line
    console.show_screen(b"seen\n", None)
    assert stdio.shown(console) == b"the same\nthe sa\nseen\n"


def test_screen_is_shown_in_the_capture_of_the_console(stdio: Stdio) -> None:
    capture = Capture()
    console = Console(
        serial_plan([], capture), stdio.decision, debugcon=parse_debugcon("null"), say=stdio.said.append
    )
    console.show_screen(b"seen\n", capture)
    assert capture.output == b"seen\n"
    assert console.finish() is None


@pytest.mark.parametrize("port", ["COM1", DEBUGCON, BIOS_TEXT])
def test_output_of_ports_erases_what_is_drawn_and_that_of_the_bios_is_drawn_alone(
    stdio: Stdio, port: str
) -> None:
    console = Console(
        serial_plan(["COM2=null"]),
        stdio.decision,
        debugcon=parse_debugcon("auto"),
        bios=True,
        draws=True,
    )
    console.sink("COM2")(b"elsewhere")
    take = console.sink(port)
    drawing = console.drawing
    assert drawing is not None
    drawing.draw(lambda _: b"one ")
    drawing.draw(lambda _: b"two ")
    take(b"text")
    assert drawing.is_drawn == (port == BIOS_TEXT)
    assert stdio.shown(console) == b"one two " + (b"" if port == BIOS_TEXT else b"\x1b[Jtext")


def test_text_of_the_bios_is_kept_only_if_it_is_asked_for_and_bounded(stdio: Stdio) -> None:
    for keeps in (False, True):
        console = Console(
            serial_plan(["COM1=null"]),
            stdio.decision,
            debugcon=parse_debugcon("null"),
            bios=True,
            keep_bios_text=keeps,
        )
        take = console.sink(BIOS_TEXT)
        take(b"first")
        console.may_wait()  # the next boot
        take(b"second")
        assert bytes(console.bios_text) == (b"first\nsecond" if keeps else b"")
        take(bytes(2 * BIOS_TEXT_KEPT))
        assert len(console.bios_text) == (BIOS_TEXT_KEPT if keeps else 0)
        console.finish()


# --- --expect and --fail-on ------------------------------------------------------------------------------


def test_expected_text_across_ports_of_the_console_decides(stdio: Stdio) -> None:
    console = stdio.console(expect=(b"hello",))
    console.sink("COM1")(b"hel")
    assert stdio.decision.outcome is None
    console.sink(DEBUGCON)(b"lo")
    assert stdio.decision.outcome is not None
    assert stdio.decision.outcome.status == CLEAN
    assert stdio.shown(console) == b"hello"


def test_fatal_text_decides_and_is_named(stdio: Stdio) -> None:
    console = stdio.console(expect=(b"ok",), fail_on=(b"BUG\n",))
    console.sink("COM1")(b"BUG\n ok")
    outcome = stdio.decision.outcome
    assert outcome is not None
    assert (outcome.status, outcome.error) == (UNEXPECTED, True)
    assert outcome.reason == r"the guest printed 'BUG\n' (--fail-on)"
    console.finish()


def test_output_behind_the_decisive_byte_does_not_belong_to_the_run(stdio: Stdio) -> None:
    console = stdio.console(expect=(b"ok",))
    com1, mmio = console.sink("COM1"), console.sink("MMIO")
    com1(b"ok, and more of the same piece")
    com1(b" lost")
    mmio(b" lost")
    assert stdio.shown(console) == b"ok"


@pytest.mark.parametrize(
    ("limit", "text", "status"),
    [(6, b"abcdef", CLEAN), (5, b"abcdef", UNEXPECTED), (4, b"abcdef", UNEXPECTED)],
)
def test_byte_that_exceeds_the_limit_is_judged_in_its_place_in_the_piece(
    stdio: Stdio, limit: int, text: bytes, status: int
) -> None:
    console = stdio.console(expect=(text,), limit=limit)
    console.sink(DEBUGCON)(text + b"and more in one piece")
    assert stdio.decision.outcome is not None
    assert stdio.decision.outcome.status == status
    assert stdio.shown(console) == text[:limit]


def test_last_line_is_that_of_each_console_port(stdio: Stdio) -> None:
    console = stdio.console("COM2=null")
    com1, com2, debugcon, _silent = (console.sink(port) for port in ("COM1", "COM2", DEBUGCON, "MMIO"))
    for byte in b"first\r\nsecond\r\n\r\n \r":
        com1(bytes((byte,)))
    com2(b"no console\n")
    debugcon(b"one\ntwo")
    debugcon(b"three")
    assert console.last_lines() == {"COM1": b"second", DEBUGCON: b"twothree"}
    console.finish()


def test_last_line_without_an_end_is_kept_in_part(stdio: Stdio) -> None:
    console = stdio.console()
    com1 = console.sink("COM1")
    for _ in range(10 * RECENT):
        com1(b"x")
    assert console.last_lines() == {"COM1": b"x" * RECENT}
    console.finish()


def test_output_behind_the_decisive_text_is_no_last_line(stdio: Stdio) -> None:
    console = stdio.console(expect=(b"ok",))
    com1 = console.sink("COM1")
    com1(b"ok\n")
    com1(b"lost\n")
    assert console.last_lines() == {"COM1": b"ok"}
    console.finish()


@pytest.mark.parametrize("option", ["COM2=null", "COM2=pty"])
def test_port_that_is_not_the_console_is_not_matched(stdio: Stdio, option: str) -> None:
    console = stdio.console(option, expect=(b"ok",))
    console.sink("COM2")(b"ok")
    assert stdio.decision.outcome is None
    console.finish()
    console.close()


def test_com1_is_matched_wherever_its_output_goes(stdio: Stdio) -> None:
    console = stdio.console("COM1=null", expect=(b"ok",))
    console.sink("COM1")(b"ok")
    assert stdio.decision.outcome is not None
    console.finish()


def test_port_on_stdio_is_matched(stdio: Stdio) -> None:
    console = stdio.console("COM2=stdio", expect=(b"ok",))
    console.sink("COM2")(b"ok")
    assert stdio.decision.outcome is not None
    console.finish()


def test_text_is_matched_in_a_port_that_another_one_interrupts(stdio: Stdio) -> None:
    console = stdio.console(expect=(b"ok!",))
    com1, debugcon = console.sink("COM1"), console.sink(DEBUGCON)
    for byte in (b"o", b"k"):
        com1(byte)
        debugcon(byte)
    assert stdio.decision.outcome is None
    com1(b"!")
    assert stdio.decision.outcome is not None
    assert stdio.shown(console) == b"ok!"


@pytest.mark.parametrize("debugcon", ["auto", "stdout", "stderr", "null", "file"])
def test_debug_console_is_matched_wherever_its_output_goes(
    stdio: Stdio, tmp_path: Path, debugcon: str
) -> None:
    where = f"file:{tmp_path / 'log'}" if debugcon == "file" else debugcon
    console = stdio.console(debugcon=where, expect=(b"ok",))
    console.sink(DEBUGCON)(b"ok")
    assert stdio.decision.outcome is not None
    console.finish()
    console.close()


# --- The debug console -----------------------------------------------------------------------------------

BOTH = [
    ("COM1", b"hello\r\n"),
    (DEBUGCON, b"hello\n"),
    (DEBUGCON, b"only here\n"),
    ("COM1", b"only there\r\n"),
]
"""What a guest prints: one line to both, then one to each."""


@pytest.mark.parametrize(
    ("serial", "debugcon", "shown"),
    [
        ([], "auto", b"hello\r\nonly here\nonly there\r\n"),
        (["COM1=stdio"], "auto", b"hello\r\nonly here\nonly there\r\n"),
        ([], "stdout", b"hello\r\nhello\nonly here\nonly there\r\n"),
        ([], "stderr", b"hello\r\nonly there\r\n"),
        ([], "null", b"hello\r\nonly there\r\n"),
        (["COM1=null"], "auto", b"hello\nonly here\n"),
        (["COM2=stdio"], "auto", b"hello\nonly here\n"),
        (["COM1=null"], "null", b""),
    ],
)
def test_line_of_com1_and_of_the_debug_console_is_shown_once_by_default(
    stdio: Stdio, serial: list[str], debugcon: str, shown: bytes
) -> None:
    console = stdio.console(*serial, debugcon=debugcon)
    sinks = {port: console.sink(port) for port in ("COM1", DEBUGCON)}
    for port, data in BOTH:
        sinks[port](data)
    assert stdio.shown(console) == shown
    if debugcon == "stderr":
        assert os.read(stdio.messages, 1 << 16) == b"hello\nonly here\n"
    assert console.bytes_out == {"COM1": 19, DEBUGCON: 16}


def test_bytes_that_are_not_repeated_are_counted(stdio: Stdio) -> None:
    console = stdio.console()
    sinks = {port: console.sink(port) for port in ("COM1", DEBUGCON)}
    for port, data in BOTH:
        sinks[port](data)
    console.finish()
    assert console.shown_for_another == {"COM1": 0, DEBUGCON: 6}
    assert stdio.console(debugcon="stdout").shown_for_another == {}


def test_debug_console_to_a_file_is_all_that_the_file_gets(stdio: Stdio, tmp_path: Path) -> None:
    console = stdio.console(debugcon=f"file:{tmp_path / 'log'}")
    console.sink("COM1")(b"hello\n")
    console.sink(DEBUGCON)(b"hello\n")
    assert stdio.shown(console) == b"hello\n"
    console.close()
    assert (tmp_path / "log").read_bytes() == b"hello\n"


def test_debug_console_beside_the_port_on_stdio_is_compared_with_that_one(stdio: Stdio) -> None:
    console = stdio.console("COM2=stdio")
    console.sink("COM2")(b"a\n")
    console.sink(DEBUGCON)(b"a\n")
    assert stdio.shown(console) == b"a\n"


def test_what_is_withheld_appears_after_some_slices_and_at_the_end(stdio: Stdio) -> None:
    console = stdio.console()
    console.sink("COM1")(b"hello\n")
    console.sink(DEBUGCON)(b"he")
    for _ in range(PATIENCE_TICKS + 1):
        console.tick()
    console.sink("COM1")(b"\n")
    console.sink("COM1")(b"world\n")
    console.sink(DEBUGCON)(b"\nwor")
    assert stdio.shown(console) == b"hello\nhe\nworld\n\nwor"


# --- What the host does not take -------------------------------------------------------------------------


def test_output_beyond_the_limit_decides(stdio: Stdio) -> None:
    console = stdio.console(limit=4)
    com1 = console.sink("COM1")
    com1(b"1234")
    assert stdio.decision.outcome is None
    com1(b"5")
    assert stdio.decision.outcome is not None
    assert stdio.decision.outcome.status == UNEXPECTED
    assert "stdout reached --serial-limit" in stdio.decision.outcome.reason
    assert stdio.shown(console) == b"1234"


def test_finish_of_a_run_that_was_decided_before_its_output_broke_tells_it(
    stdio: Stdio, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(module, "STDOUT", broken)
    console = stdio.console()
    stdio.decision.decide(Outcome(CLEAN, "the guest shut down"))
    console.sink("COM1")(b"lost")
    assert str(console.finish()).startswith("4 bytes of the guest's output to stdout could not be written")
    os.close(broken)


def test_output_that_breaks_decides_the_run(stdio: Stdio, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(module, "STDOUT", broken)
    console = stdio.console()
    decided = DecidedBy(stdio.decision)
    console.sink("COM1")(b"lost")
    console.finish()
    assert decided() == Outcome(
        KVMBOX_FAILED,
        "cannot write the guest's output to stdout: No space left on device",
        error=True,
    )
    os.close(broken)


class DecidedBy:
    """Waits for the decision that another thread decides."""

    def __init__(self, decision: Judge) -> None:
        self._decision = decision
        self._event = threading.Event()
        decision.on_decided(self._event.set)

    def __call__(self) -> Outcome | None:
        assert self._event.wait(30)
        return self._decision.outcome


def test_wait_for_room_without_congestion_does_not_wait(stdio: Stdio) -> None:
    console = stdio.console()
    console.wait_for_room()
    console.wake_waiters()
    console.finish()


class FullStream:
    """A stream without room: notes at each wait whether the waiter may go on waiting."""

    def __init__(self, name: str, _descriptor: int, *, tight: Callable[[], None], **_options: object) -> None:
        self.name = name
        self.congested = True
        self.waits: list[Callable[[], bool]] = []
        self.wakes = 0
        self._tight = tight

    def append(self, _data: bytes) -> None:
        self._tight()

    def wait_for_room(self, wanted: Callable[[], bool]) -> None:
        self.waits.append(wanted)

    def wake(self) -> None:
        self.wakes += 1


def full_console(stdio: Stdio, monkeypatch: pytest.MonkeyPatch) -> tuple[Console, FullStream]:
    """A console whose stdout has no room."""
    monkeypatch.setattr(module, "OutputStream", FullStream)
    console = stdio.console()
    (stdout,) = console.streams
    assert isinstance(stdout, FullStream)
    return console, stdout


def test_wake_waiters_lets_nobody_wait_until_the_next_boot(
    stdio: Stdio, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A vCPU thread has ended, or the guest resets: the others have to leave, although nothing is decided.
    console, stdout = full_console(stdio, monkeypatch)
    com1 = console.sink("COM1")
    com1(b"x")
    console.wait_for_room()
    (wanted,) = stdout.waits
    assert wanted()
    console.wake_waiters()
    assert stdout.wakes == 1
    assert not wanted()
    com1(b"y")
    console.wait_for_room()
    assert not stdout.waits[-1]()
    console.may_wait()
    assert wanted()
    stdio.decision.decide(Outcome(CLEAN, "the guest shut down"))
    assert not wanted()


def test_postponed_wait_for_room_is_made_up_for(stdio: Stdio, monkeypatch: pytest.MonkeyPatch) -> None:
    console, stdout = full_console(stdio, monkeypatch)
    console.sink("COM1")(b"x")
    console.postpone(threading.get_ident())
    console.wait_for_room()
    assert stdout.waits == []
    console.postpone(threading.get_ident() + 1)  # another thread's: this one waits
    console.wait_for_room()
    assert len(stdout.waits) == 1
    console.sink("COM1")(b"y")
    console.postpone(0)
    console.wait_for_room()
    assert len(stdout.waits) == 2


# --- Input -----------------------------------------------------------------------------------------------


def input_of(console: Console) -> InputPort:
    (port,) = console.inputs
    return port


def test_input_of_a_pipe_is_all_the_guests(stdio: Stdio) -> None:
    console = stdio.console()
    port = input_of(console)
    assert port.escapes is None
    os.write(stdio.keyboard, b"a\x01xb")
    console.read_input(port)
    assert bytes(port.pending) == b"a\x01xb"
    assert console.bytes_in == {"COM1": 4}
    assert stdio.decision.outcome is None
    console.finish()


def test_input_that_ends_is_not_read_again(stdio: Stdio) -> None:
    console = stdio.console()
    port = input_of(console)
    read_end, write_end = os.pipe()
    os.close(write_end)
    port.descriptor = read_end
    assert port.wants_more
    console.read_input(port)
    assert port.ended
    assert not port.wants_more
    os.close(read_end)
    console.finish()


def test_input_that_cannot_be_read_has_ended(stdio: Stdio) -> None:
    console = stdio.console()
    port = input_of(console)
    port.descriptor = os.open("/", os.O_RDONLY)  # EISDIR
    console.read_input(port)
    assert port.ended
    os.close(port.descriptor)
    console.finish()


def test_input_waits_in_the_hosts_pipe_while_enough_is_pending(stdio: Stdio) -> None:
    console = stdio.console()
    port = input_of(console)
    os.write(stdio.keyboard, bytes(3 * INPUT_CHUNK))
    reads = 0
    while port.wants_more:
        console.read_input(port)
        reads += 1
    assert (reads, len(port.pending)) == (1, INPUT_CHUNK)
    del port.pending[:1]
    assert port.wants_more
    console.finish()


def test_input_commands_of_a_terminal_are_obeyed(stdio: Stdio) -> None:
    console = stdio.console()
    port = input_of(console)
    port.escapes = EscapeParser()
    os.write(stdio.keyboard, b"a\x01hb")
    console.read_input(port)
    assert bytes(port.pending) == b"ab"
    assert tuple(stdio.said) == HELP
    assert stdio.decision.outcome is None
    os.write(stdio.keyboard, b"\x01x")
    console.read_input(port)
    assert stdio.decision.outcome == Outcome(INTERRUPTED, "left by Ctrl-A X")
    assert console.bytes_in == {"COM1": 2}
    console.finish()


def test_room_lets_the_right_port_send_again_and_wakes_the_main_thread(stdio: Stdio) -> None:
    console = stdio.console("COM2=pty")
    com1, com2 = sorted(console.inputs, key=lambda port: port.name)
    for port in (com1, com2):
        port.pending += b"x"
        port.waiting_for_room = True
        assert not port.can_send
    console.room("COM2")(5)
    assert (com1.can_send, com2.can_send) == (False, True)
    assert stdio.wakes == 1
    console.finish()
    console.close()


def test_no_byte_is_lost_from_the_count_where_several_threads_send(stdio: Stdio) -> None:
    class Slow(dict[str, int]):
        """Lets another thread run between the reading of a count and its writing."""

        def get(self, port: str, default: int = 0) -> int:  # type: ignore[override]
            found = super().get(port, default)
            os.sched_yield()
            return found

    com1 = Capture()
    console = Console(serial_plan({"COM1": com1}, com1), stdio.decision)
    console.bytes_in = Slow()
    together = threading.Barrier(4)

    def type_much() -> None:
        together.wait()
        for _ in range(200):
            com1.send(b"xy")

    senders = [threading.Thread(target=type_much) for _ in range(together.parties)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert console.bytes_in == {"COM1": 4 * 200 * 2}
    console.finish()
    console.close()


def test_capture_gets_output_and_what_is_sent_wakes_the_main_loop(stdio: Stdio) -> None:
    com1, com2 = Capture(), Capture()
    com2.send(b"early")
    plan = serial_plan({"COM1": com1, "COM2": com2}, com1)
    console = Console(
        plan, stdio.decision, debugcon=SerialSpec(DEBUGCON, "auto", capture=com1), wake=stdio.wake
    )
    assert (stdio.wakes, console.bytes_in) == (1, {"COM2": 5})
    com1.send(b"xy")
    assert (stdio.wakes, console.bytes_in) == (2, {"COM2": 5, "COM1": 2})
    assert [(port.name, bytes(port.pending), port.wants_more) for port in console.inputs] == [
        ("COM1", b"xy", False),
        ("COM2", b"early", False),
    ]
    for port in ("COM1", "COM2", "MMIO", DEBUGCON):
        console.sink(port)(port.encode() + b"\n")
    assert console.finish() is None
    console.close()
    assert (com1.output, com2.output) == (b"COM1\nMMIO\ndebugcon\n", b"COM2\n")
    assert not any(stream.name == "stdout" for stream in console.streams)  # nobody asked for it
    with pytest.raises(ExpectError, match="before the guest ended"):
        com1.expect("never")


def test_keyboard_is_an_input_once_a_program_has_pressed_a_key(stdio: Stdio) -> None:
    com1, keys = Capture(), Typed()
    plan = serial_plan({"COM1": com1}, com1)
    console = Console(plan, stdio.decision, keyboard=KeyboardSpec(keys, Typed()), wake=stdio.wake)
    assert [port.name for port in console.inputs] == ["COM1"]
    keys.send(b"\x1f\x9f")
    keys.send(b"\x20")
    assert [(port.name, port.offer(64)) for port in console.inputs] == [
        ("COM1", b""),
        (KEYBOARD, b"\x1f\x9f\x20"),
    ]
    assert (stdio.wakes, console.bytes_in) == (2, {KEYBOARD: 3})
    console.finish()
    console.close()


def test_keyboard_that_is_the_consoles_takes_its_capture_and_no_other(stdio: Stdio) -> None:
    com1, com2, keys = Capture(), Capture(), Typed()
    plan = serial_plan({"COM1": com1, "COM2": com2}, com1)
    keyboard = KeyboardSpec(keys, Typed(), True, com1)
    console = Console(plan, stdio.decision, keyboard=keyboard, wake=stdio.wake)
    com1.send("a")
    com2.send("b")
    keys.send(b"\x20")
    offers = {port.name: port.offer(64) for port in console.inputs}
    assert offers == {"COM2": b"b", KEYBOARD: b"\x20"}
    keyboard_port = next(port for port in console.inputs if port.name == KEYBOARD)
    keyboard_port.accept(1)
    assert keyboard_port.offer(64) == b"\x1f\x9f"
    assert (stdio.wakes, console.bytes_in) == (3, {KEYBOARD: 2, "COM2": 1})
    console.sink("COM1")(b"output is where it was")
    console.finish()
    console.close()
    assert com1.output == b"output is where it was"


@pytest.mark.parametrize("options", [(), ("COM1=null",)])
def test_keyboard_that_is_the_consoles_takes_stdin_and_obeys_commands(
    stdio: Stdio, options: tuple[str, ...]
) -> None:
    keyboard = KeyboardSpec(Typed(), Typed(), reads_console=True)
    console = Console(serial_plan(list(options)), stdio.decision, keyboard=keyboard)
    port = input_of(console)
    port.escapes = EscapeParser()
    os.write(stdio.keyboard, b"a\x01\x01\x01x")
    console.read_input(port)
    assert port.offer(64) == bytes.fromhex("1f9f 3a1f9fba")  # A, Ctrl-A
    assert stdio.decision.outcome is not None
    assert stdio.decision.outcome.status == INTERRUPTED
    console.finish()


def test_console_serial_spec_of_every_kind_is_known(stdio: Stdio) -> None:
    plan = {"COM1": SerialSpec("COM1", "stdout"), "COM2": SerialSpec("COM2", "null")}
    console = Console(plan, stdio.decision)
    console.sink("COM1")(b"x")
    assert stdio.shown(console) == b"x"
    assert console.dropped == {"stdout": 0}


# --- The text of the built-in BIOS ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("serial", "debugcon", "shown"),
    [
        ([], "auto", b"one\ntwo\nthree\n"),
        ([], "null", b"one\ntwo\n"),
        (["COM1=null"], "auto", b"one\nthree\n"),
        (["COM1=null"], "null", b""),
    ],
)
def test_bios_text_is_shown_where_the_console_is_and_with_another_port_once(
    stdio: Stdio, serial: list[str], debugcon: str, shown: bytes
) -> None:
    console = stdio.console(*serial, debugcon=debugcon, bios=True)
    bios, com1, debug = console.sink(BIOS_TEXT), console.sink("COM1"), console.sink(DEBUGCON)

    bios(b"one\n")
    for sink in (com1, debug):
        sink(b"one\n")
    com1(b"two\n")
    debug(b"three\n")

    assert stdio.shown(console) == shown
    assert console.bytes_out[BIOS_TEXT] == 4


def test_bios_text_counts_for_expect(stdio: Stdio) -> None:
    console = stdio.console(expect=(b"Type:",), bios=True)
    bios = console.sink(BIOS_TEXT)

    for byte in b"Type:":
        bios(bytes((byte,)))

    assert stdio.decision.outcome is not None
    assert stdio.shown(console) == b"Type:"


def test_bios_text_that_waits_is_shown_after_a_while(stdio: Stdio) -> None:
    console = stdio.console(bios=True)
    bios = console.sink(BIOS_TEXT)
    console.sink(DEBUGCON)(b"Type a line\n")

    bios(b"Type a")
    waited = [console.tick() for _ in range(2 * PATIENCE_TICKS + 3)]

    assert waited[0]
    assert not waited[-1]
    assert os.read(stdio.screen, 100)[:12] == b"Type a line\n"
    assert console.finish() is None


def test_text_on_the_screen_decides_and_what_is_printed_later_is_not_of_the_run(stdio: Stdio) -> None:
    console = stdio.console(expect=(b"seen",))
    stdio.decision.look(b"nothing")
    assert stdio.decision.outcome is None
    stdio.decision.look(b"seen")
    assert stdio.decision.outcome is not None
    assert (stdio.decision.outcome.status, stdio.decision.outcome.error) == (0, False)
    console.sink("COM1")(b"too late")
    assert stdio.shown(console) == b""


# --- --serial-limit and what is withheld ------------------------------------------------------------------


def test_limit_counts_what_was_withheld_when_the_guest_has_ended(stdio: Stdio) -> None:
    console = stdio.console(limit=10)
    com1, debugcon = console.sink("COM1"), console.sink(DEBUGCON)
    stdio.decision.connect(lambda: None)
    com1(b"the same\n")
    debugcon(b"the")
    assert stdio.decision.outcome is None
    console.show_withheld()
    assert stdio.decision.outcome is not None
    assert stdio.decision.outcome.status == UNEXPECTED
    assert stdio.shown(console) == b"the same\nt"
