"""The host side of all serial ports and of the debug console.

Output goes to one stream per backend, as far as the judge says that it belongs to the run. The judge searches
texts in the guest's console (COM1, the debug console, and whatever port is on stdio), whether or not it is
shown, in the order in which it came out of the devices. The debug console shares the stream of the port on
stdio, or of the one whose Capture is the console, and what both print is shown once
(`host.console.duplicate_output`), unless
--debugcon says otherwise. Input is read by the main loop and handed to a port only while its UART has room: a
guest that does not read loses nothing and costs no memory, as the host's pipe fills.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kvmbox.base.judge import Judge
from kvmbox.base.outcome import DEVICE_FAILED, INTERRUPTED, KVMBOX_FAILED, UNEXPECTED, Outcome
from kvmbox.contract.names import BIOS_TEXT, KEYBOARD, MOUSE_EVENT_SIZE
from kvmbox.host.console.duplicate_output import MirroredOutput, PortLines
from kvmbox.host.console.input_port import INPUT_CHUNK, InputPort
from kvmbox.host.console.output_stream import OutputStream
from kvmbox.host.console.serial_backends import (
    DEBUGCON,
    DEBUGCON_DEFAULT,
    KeyboardSpec,
    SerialSpec,
    open_file,
)
from kvmbox.host.console.terminal import RawTerminal

if TYPE_CHECKING:
    from kvmbox.host.console.captured_port import Capture, CaptureStream
    from kvmbox.host.console.escape_keys import EscapeParser
    from kvmbox.host.console.overlay_output import DrawnStream
    from kvmbox.host.console.sent_input import Typed

RECENT: Final = 192
"""How many pieces of its output are kept of each console port, for its last line. A UART has one per byte."""
TYPED_LIMIT: Final = 2 * INPUT_CHUNK
"""How much typed input waits for a guest that does not read; what is typed beyond it is dropped."""
BIOS_TEXT_KEPT: Final = 1 << 14
"""How much of the text of the built-in BIOS is kept: several screens."""
FLUSH_SECONDS: Final = 1.0
"""How long the last flush may take, all streams together."""

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2


class Console:
    """Backends of all ports of one machine. Created and closed by the main thread."""

    def __init__(
        self,
        plan: Mapping[str, SerialSpec],
        judge: Judge,
        *,
        debugcon: SerialSpec = DEBUGCON_DEFAULT,
        keyboard: KeyboardSpec | None = None,
        overflow: str = "wait",
        limit: int | None = None,
        bios: bool = False,
        keep_bios_text: bool = False,
        draws: bool = False,
        recent: Callable[[], Any] | None = None,
        say: Callable[[str], None] = lambda text: None,
        wake: Callable[[], None] = lambda: None,
        terminal: RawTerminal | None = None,
    ) -> None:
        """`say` tells the person a line; `wake` wakes the main thread. `terminal` is what stdin is taken for,
        None where it may be made raw if it is one. `keep_bios_text` keeps `bios_text`. `draws`: the screen
        is drawn on stdout. `recent` makes what keeps the end of a port, in `recent`: a deque, or a `Tail`.
        """
        self.inputs: list[InputPort] = []
        self.streams: list[OutputStream | CaptureStream] = []
        self.terminal = RawTerminal(STDIN) if terminal is None else terminal
        self.bytes_out: dict[str, int] = {}
        self.bytes_in: dict[str, int] = {}
        self._counting = threading.Lock()  # several threads may send to one Capture
        self.first_byte_at: int | None = None
        """Host monotonic ns at the first byte of console output."""
        self.recent: defaultdict[str, Any] = defaultdict(recent or partial(deque, maxlen=RECENT))
        self._judge = judge
        self._tight = False  # whether some stream may be congested
        self._postponed = 0  # the thread that must not wait now
        self._leaving = False  # whether the vCPU threads are to end, so that none of them may wait
        self._say = say
        self._notes: list[str] = []  # for the person, from a thread that must not wait for stderr
        self._wake = wake
        self._descriptors: list[int] = []
        self._keyboard = keyboard
        self._overflow = overflow
        self._limit = limit
        judge.limits(limit)
        self._writers: dict[str, Callable[[bytes], None] | None] = {}
        self._console_ports = {"COM1", DEBUGCON}
        self._mirrors: list[MirroredOutput] = []
        """Each of them before the one that it prints to."""
        self._keeps_bios_text = keep_bios_text
        self._draws = draws
        self.bios_text = bytearray()
        """The end of what the built-in BIOS has printed, if that is kept."""
        self._shared: dict[Capture | None, OutputStream | CaptureStream] = {}
        try:
            self._open(plan, debugcon, bios=bios)
        except BaseException:
            self.finish()
            self.close()
            raise

    def _open(self, plan: Mapping[str, SerialSpec], debugcon: SerialSpec, *, bios: bool) -> None:
        for port, spec in (*plan.items(), (DEBUGCON, debugcon)):
            stream = self._open_backend(spec)
            self._writers[port] = None if stream is None else stream.append
        beside = self._mirror_console(plan, debugcon)
        if bios:
            self._open_bios(plan, debugcon, beside)
        if self._keyboard is not None:
            self._open_keyboard(self._keyboard)

    def _mirror_console(self, plan: Mapping[str, SerialSpec], debugcon: SerialSpec) -> str | None:
        """What the debug console and the port beside it both print is shown once, if nobody objects.

        Returns that port.
        """
        beside = next(
            (
                port
                for port, spec in plan.items()
                if spec.kind in ("stdio", "capture") and spec.capture is debugcon.capture
            ),
            None,
        )
        if debugcon.kind == "auto" and beside is not None:
            self._share(self._shared[debugcon.capture].append, (beside, DEBUGCON))
        return beside

    def _open_bios(self, plan: Mapping[str, SerialSpec], debugcon: SerialSpec, beside: str | None) -> None:
        """The text of the BIOS is shown where the console is. What another port there prints, too, is shown
        once.
        """
        self._console_ports.add(BIOS_TEXT)
        if debugcon.kind == "auto":
            partner, stream = DEBUGCON, self._writers[DEBUGCON]
        elif beside is not None:
            partner, stream = beside, self._writers[beside]
        else:
            partner = next((port for port, spec in plan.items() if spec.kind in ("stdio", "capture")), "")
            stream = self._writers.get(partner)
        if stream is None or self._draws:  # what is drawn has its text
            self._writers[BIOS_TEXT] = None
            return
        self._share(stream, (partner, BIOS_TEXT))

    def _share(self, write: Callable[[bytes], None], ports: tuple[str, str]) -> None:
        """Two ports print to one place."""
        mirror = MirroredOutput(write, ports)
        self._mirrors.insert(0, mirror)
        for port in ports:
            self._writers[port] = mirror.input(port)

    def _open_keyboard(self, keyboard: KeyboardSpec) -> None:
        """Until a program presses a key, the keyboard is no input, if the console is not its input. The mouse
        is none until it is moved.
        """
        self._open_typed(keyboard.mouse, MOUSE_EVENT_SIZE)
        if not keyboard.reads_console:
            self._open_typed(keyboard.keys)
            return
        from kvmbox.host.console.keyboard_input import on_console

        self.inputs.append(
            on_console(keyboard, STDIN, self._escapes(), self._say, partial(self._was_typed, KEYBOARD))
        )

    def _open_typed(self, typed: Typed, unit: int = 1) -> None:
        """What a program sends there is an input from its first byte on."""
        port = InputPort(KEYBOARD, -1, pending=typed.pending, unit=unit)

        def sent(count: int) -> None:
            if port not in self.inputs:
                self.inputs.append(port)
            self._was_typed(KEYBOARD, count)

        typed.connect(sent)

    def _was_typed(self, port_name: str, count: int) -> None:
        """A program has typed so many bytes for a port. On any thread."""
        self._count_in(port_name, count)
        self._wake()

    def _escapes(self) -> EscapeParser | None:
        if not self.terminal.is_terminal:
            return None
        from kvmbox.host.console.escape_keys import EscapeParser

        return EscapeParser()

    def _types_on_keyboard(self, capture: Capture | None) -> bool:
        """Whether what is typed on stdin (None), or on a Capture, goes to the keyboard."""
        keyboard = self._keyboard
        return keyboard is not None and keyboard.reads_console and keyboard.console is capture

    def _console_stream(self, capture: Capture | None = None) -> OutputStream | CaptureStream:
        """The one stream that several ports may write to: stdout, or a Capture."""
        if capture not in self._shared:
            self._shared[capture] = (
                self._stream("stdout", STDOUT) if capture is None else self._capture_stream(capture)
            )
        return self._shared[capture]

    def _capture_stream(self, capture: Capture) -> CaptureStream:
        name = "capture" if not any(self._shared) else f"capture {len(self._shared) + 1}"
        from kvmbox.host.console.captured_port import CaptureStream

        stream = CaptureStream(
            name, capture, limit=self._limit, limit_reached=lambda: self._limit_reached(name)
        )
        self.streams.append(stream)
        return stream

    def _open_capture(self, spec: SerialSpec, capture: Capture) -> CaptureStream | OutputStream:
        if spec.kind == "shared":
            self._console_ports.add(spec.port)
        elif spec.port != DEBUGCON and not self._types_on_keyboard(capture):
            self.inputs.append(InputPort(spec.port, -1, pending=capture.typed.pending))
            capture.typed.connect(lambda count: self._was_typed(spec.port, count))
        return self._console_stream(capture)

    def _stream(self, name: str, descriptor: int, *, pty: bool = False) -> OutputStream:
        kind = OutputStream
        if self._draws and descriptor == STDOUT:
            from kvmbox.host.console.overlay_output import DrawnStream as kind
        stream = kind(
            name,
            descriptor,
            overflow=self._overflow,
            limit=self._limit,
            drop_without_reader=pty,
            failed=lambda error: self._failed(name, error),
            limit_reached=lambda: self._limit_reached(name),
            overflowed=lambda: self._overflowed(name),
            tight=self._became_tight,
        )
        self.streams.append(stream)
        return stream

    def _open_backend(self, spec: SerialSpec) -> OutputStream | CaptureStream | None:
        if spec.capture is not None:
            return self._open_capture(spec, spec.capture)
        if spec.kind == "stdio":
            self._console_ports.add(spec.port)
            if not self._types_on_keyboard(None):
                self.inputs.append(InputPort(spec.port, STDIN, escapes=self._escapes()))
            return self._console_stream()
        if spec.kind in ("stdout", "auto"):
            self._console_ports.add(spec.port)
            return self._console_stream()
        if spec.kind == "stderr":
            return self._stream("stderr", STDERR)
        if spec.kind == "file":
            descriptor = open_file(spec)
            self._descriptors.append(descriptor)
            return self._stream(spec.path, descriptor)
        if spec.kind == "pty":
            from kvmbox.host.console.pseudo_terminal import open_pty

            descriptor, path = open_pty()
            self._descriptors.append(descriptor)
            self._say(f"{spec.port} is {path}")
            self.inputs.append(InputPort(spec.port, descriptor, is_pty=True))
            return self._stream(path, descriptor, pty=True)
        return None

    @property
    def congested(self) -> bool:
        """Whether some stream has no room."""
        return any(stream.congested for stream in self.streams)

    # --- Output, called by whichever thread took it from a reply ------------------------------------------

    def sink(self, port: str) -> Callable[[bytes], None]:
        """Where the output of `port` goes: a function of bytes that never blocks for the host."""
        write = self._writers[port]
        shown = port in self._console_ports
        counts = self.bytes_out
        counts[port] = 0
        recent = self.recent[port]

        judge = self._judge

        def show(data: bytes) -> None:
            if shown:
                recent.append(data)
            if write is not None:
                write(data)

        def take(data: bytes) -> None:
            counts[port] += len(data)
            if shown and self.first_byte_at is None:
                self.first_byte_at = time.monotonic_ns()
            if judge.judges:
                judge.printed(port, data, show, searched=shown)
            else:
                show(data)

        if not self._keeps_bios_text or port != BIOS_TEXT:
            return take

        def take_for_screen(data: bytes) -> None:
            self.bios_text += data
            del self.bios_text[:-BIOS_TEXT_KEPT]
            take(data)

        return take_for_screen

    @property
    def drawing(self) -> DrawnStream | None:
        """What is drawn on, if there is room now and the monitor does not have the terminal."""
        stream: Any = self._console_stream()
        used = any(port.escapes is not None and port.escapes.in_monitor for port in self.inputs)
        return None if used or stream.congested else stream

    def show_screen(self, text: bytes, capture: Capture | None) -> None:
        """The guest has ended: print the text of its screen, in `capture` or on stdout, behind what the
        guest has printed there.
        """
        self.show_withheld()
        stream = self._console_stream(capture)
        stream.append(b"\n" + text if stream.appended else text)

    def last_lines(self) -> dict[str, bytes]:
        """The last line with something in it of each console port, or as much of its end as is kept."""
        found = {}
        for port, recent in self.recent.items():
            lines = [line for line in b"".join(recent.copy()).splitlines() if line.strip()]
            if lines:
                found[port] = lines[-1]
        return found

    def lines(self) -> list[list[PortLines]]:
        """What ports that share a screen have printed of their present lines, for each such pair."""
        return [mirror.lines() for mirror in self._mirrors]

    def go_on(self, lines: Sequence[Sequence[PortLines]]) -> None:
        """Go on as `lines` of another console says, as far as the same ports share a screen here."""
        for mirror in self._mirrors:
            for one in lines:
                mirror.go_on(one)

    def tick(self) -> bool:
        """Show what was withheld for too long, once per slice. Return whether more is withheld."""
        self._say_notes()
        with self._judge.order:
            waits = [mirror.tick() for mirror in self._mirrors]
        return any(waits)

    @property
    def shown_for_another(self) -> dict[str, int]:
        """Bytes of each port that stdout did not get, as another port had printed the same."""
        withheld: dict[str, int] = {}
        for mirror in self._mirrors:
            for port, count in mirror.withheld.items():
                withheld[port] = withheld.get(port, 0) + count
        return withheld

    def note(self, text: str) -> None:
        """Tell the person a line, on any thread: the main thread says it in its next slice."""
        self._notes.append(text)
        self._wake()

    def _say_notes(self) -> None:
        while self._notes:
            self._say(self._notes.pop(0))

    def wait_for_room(self) -> None:
        """A vCPU thread, holding no lock: wait while a stream is congested and the run goes on."""
        if not self._tight or self._postponed == threading.get_ident():
            return
        self._tight = False
        for stream in self.streams:
            if stream.congested:
                stream.wait_for_room(lambda: not self._leaving and self._judge.outcome is None)

    def postpone(self, thread: int) -> None:
        """`thread` (its `get_ident`; 0: none) holds a lock that others need: let it not wait for room now.

        One thread at a time. The caller holds that lock, and calls `wait_for_room` after its release.
        """
        self._postponed = thread

    def may_wait(self) -> None:
        """A boot begins: its vCPU threads may wait for room. Its BIOS begins with an empty screen."""
        self._leaving = False
        if self.bios_text:
            self.bios_text += b"\n"

    def _became_tight(self) -> None:
        self._tight = True

    def wake_waiters(self) -> None:
        """The vCPU threads are to end: wake all that wait for room. None waits again before `may_wait`."""
        self._leaving = True
        for stream in self.streams:
            stream.wake()

    def _failed(self, name: str, error: OSError) -> None:
        self._judge.decide(
            Outcome(
                KVMBOX_FAILED,
                f"cannot write the guest's output to {name}: {error.strerror}",
                error=True,
            )
        )

    def _limit_reached(self, name: str) -> None:
        self._judge.exceed(
            Outcome(UNEXPECTED, f"the guest's output to {name} reached --serial-limit", error=True)
        )

    def _overflowed(self, name: str) -> None:
        self._judge.decide(
            Outcome(
                DEVICE_FAILED,
                f"a device process floods {name} with output that the guest did not write",
                error=True,
            )
        )

    # --- Input, the main thread's -------------------------------------------------------------------------

    def read_input(self, port: InputPort) -> None:
        """Its descriptor is readable: take what is there, kvmbox's own commands apart."""
        try:
            data = os.read(port.descriptor, INPUT_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            # A terminal that is gone, or a pseudo-terminal that nobody has open: that one comes back.
            data = b""
        if not data:
            port.ended = not port.is_pty
            return
        if port.escapes is not None:
            keys = port.escapes.feed(data)
            data = keys.data
            if keys.help_wanted:
                for line in port.escapes.help:
                    self._say(line)
            if keys.monitor is not None:
                port.escapes.tell_monitor(keys.monitor)
            if keys.leave:
                self._judge.decide(Outcome(INTERRUPTED, "left by Ctrl-A X"))
            # Nobody types megabytes that a guest does not read, but a key may get stuck.
            data = data[: max(0, TYPED_LIMIT - len(port.pending))]
        port.pending += data
        self._count_in(port.name, len(data))

    def _count_in(self, port_name: str, count: int) -> None:
        with self._counting:
            self.bytes_in[port_name] = self.bytes_in.get(port_name, 0) + count

    def room(self, port_name: str) -> Callable[[int], None]:
        """What an InputRoom effect of `port_name` calls."""

        def available(_count: int) -> None:
            for port in self.inputs:
                if port.name == port_name:
                    port.waiting_for_room = False
            self._wake()

        return available

    # --- The end ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads that write output; what is left out here starts with the first output."""
        for stream in self.streams:
            stream.start()

    def finish(self) -> str | None:
        """Write out what is left, for `FLUSH_SECONDS` at most; returns what could not be written, or None."""
        self._say_notes()
        self.show_withheld()
        deadline = time.monotonic() + FLUSH_SECONDS
        problem: str | None = None
        for stream in self.streams:
            left = stream.flush(max(0.0, deadline - time.monotonic()))
            if left:
                why = f": {stream.error.strerror}" if stream.error else ""
                problem = f"{left} bytes of the guest's output to {stream.name} could not be written{why}"
        self.terminal.leave()
        return problem

    def show_withheld(self) -> None:
        """The guest has ended, or stands still for that: show what another port has not printed, too."""
        with self._judge.order:
            for mirror in self._mirrors:
                mirror.finish()

    @property
    def dropped(self) -> dict[str, int]:
        """Bytes that each stream has dropped."""
        return {stream.name: stream.dropped for stream in self.streams}

    def close(self) -> None:
        """Close what was opened here, unless a writer is stuck: its descriptor's number must not become
        somebody else's while it may still write.
        """
        if any(stream.stuck for stream in self.streams):
            return
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
