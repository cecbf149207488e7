"""A machine as a program sees it: `with Machine("kernel.elf") as vm: ...`.

A machine lives in a thread of its own, which starts the spawner, is the main loop, and takes everything apart
again: the spawner's death signal fires when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG), so
this thread outlives its processes whoever calls. All methods may be called by any thread.

`kvmbox run` uses the same class, in its main thread and as the owner of its process: `run_here`.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import Any, Final, Self

from kvmbox.base.errors import ExpectError, UsageError, WaitTimeoutError
from kvmbox.base.judge import Judge
from kvmbox.base.outcome import INTERRUPTED, Outcome
from kvmbox.boot import bundled
from kvmbox.host.console.sent_input import Typed, slice_of
from kvmbox.host.console.serial_backends import (
    KeyboardSpec,
    SerialSpec,
    console_of,
    parse_debugcon,
    serial_plan,
)
from kvmbox.run.frontend import Caller
from kvmbox.run.options.config import NO_FAULTS_IN_SNAPSHOTS, configured
from kvmbox.run.options.option_table import taken
from kvmbox.run.part_loader import load
from kvmbox.run.run import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable
    from inspect import Signature
    from types import TracebackType
    from typing import Unpack

    from kvmbox.host.console.captured_port import Capture
    from kvmbox.run.api.keyboard_and_mouse import Mouse
    from kvmbox.run.api.paused_calls import Requests
    from kvmbox.run.display.screen_protocol import TextScreen
    from kvmbox.run.options._generated import MachineOptions, SnapshotOptions
    from kvmbox.run.result.run_result import RunResult
    from kvmbox.run.result.stage_times import Timeline

_ErrorClass = type[BaseException]  # within Machine, `type` is a method

MOST_MESSAGES: Final = 1000
"""How many lines `Machine.messages` keeps: the last ones."""

STOPPED: Final = Outcome(INTERRUPTED, "stopped by the program")


class _EachOption:
    """The signature of `Machine`, whose options are in a dictionary: made when it is asked for."""

    def __get__(self, instance: object, owner: object) -> Signature:
        from kvmbox.run.options.signature import signature

        return signature()


class Machine:
    """One machine, from its start to the end of its guest. It runs once."""

    __signature__ = _EachOption()

    def __init__(
        self, image: str | os.PathLike[str] | None = None, **options: Unpack[MachineOptions]
    ) -> None:
        """`image` is a file, or the name of a bundled guest. Without one the machine boots from the first of
        `disks`, or else of `cdroms`. The options are those of `kvmbox run`.

        `serial` gives ports a backend: a Capture, or "null", "pty", "file:PATH", "stdio". `console` is where
        COM1 and the debug console are that nothing else was said of: in a Capture, `Machine.console`, or on
        this process's stdin and stdout; the text of the screen goes to the same place. `devices` are put on
        the board beside those of a PC, and `resources` are the stores that their `Resource` grants name.
        `say` gets each line that is for a person, from the machine's thread. `start` is for `from_snapshot`.
        Nothing is opened yet. Raises UsageError.
        """
        chosen = taken(options)
        if image is None:
            from kvmbox.run.machine.boot_drive import boot_from_drive

            flat = False
            path, chosen = boot_from_drive(chosen)
        else:
            path, flat = find_image(os.fspath(image))
        self.console: Final = console_of(chosen["serial"], chosen["console"])
        """The Capture with the console's output; None where the console is on stdio."""
        plan = serial_plan(chosen["serial"], self.console)
        self._keys = Typed()
        self.config: Final = configured(
            path,
            chosen,
            flat=flat,
            serial=plan,
            debugcon=_debugcon(chosen["debugcon"], self.console),
            keyboard=KeyboardSpec(self._keys, Typed(), chosen["keyboard"] == "console", self.console),
            console=self.console,
        )
        self._captures = {
            spec.capture for spec in (*plan.values(), self.config.debugcon) if spec.capture is not None
        }
        for capture in self._captures:
            capture.claim()
        self.messages: Final[deque[str]] = deque(maxlen=MOST_MESSAGES)
        """What was there to tell a person, the last lines: restarts, the path of a pseudo-terminal, …"""
        self._say: Callable[[str], None] | None = chosen["say"]
        self._requests: Requests | None = None
        """Those of a program, whose machine has a thread of its own."""
        self._judge = Judge(
            self.config.expect, self.config.fail_on, success_status=self.config.success_status
        )
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._used = False
        self._begun = threading.Event()  # the guest runs, or will not
        self._ended = threading.Event()
        self._started = False
        self._result: RunResult | None = None
        self._error: BaseException | None = None
        self._error_reported = False

    def __repr__(self) -> str:
        state = "runs" if self.running else "has ended" if self._ended.is_set() else "not started"
        return f"<Machine {self.config.guest!r}: {state}>"

    @classmethod
    def from_snapshot(cls, path: str | os.PathLike[str], **options: Unpack[SnapshotOptions]) -> Self:
        """A machine that goes on where a snapshot was taken: a file of `snapshot`, or of --snapshot-when.

        `options` are those of the constructor, but for what the snapshot decides: image, memory, CPUs,
        devices of the PC. Serial ports that the machine has and that `serial` does not name have the backend
        "null". Raises UsageError, and SnapshotFileError for a file that cannot be used.
        """
        start = load("snapshot.file", "SnapshotFile")(os.fspath(path))
        options_of, merged = (load("snapshot.start_options", name) for name in ("options_of", "merged"))
        try:
            guest, own = options_of(start.description, start.header.memory_size)
            try:
                cls(guest, **own)  # whatever is wrong with these is not the caller's fault
            except UsageError as error:
                raise start.refuse(f"it is damaged: {error}", error.hint) from error
            return cls(guest, start=start, **merged(own, options))
        except BaseException:
            start.close()
            raise

    # --- Life ---------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it, and wait until the guest runs.

        Raises StartError, or another KvmboxError, if it could not start; then nothing of it is left.
        UsageError if it was started before.
        """
        from kvmbox.run.api.paused_calls import Requests

        self._use_once(Requests())
        thread = threading.Thread(target=self._live, name="kvmbox machine", daemon=True)
        with self._lock:
            self._thread = thread
        try:
            thread.start()
            self._begun.wait()
        except BaseException as error:
            if thread.ident is None:  # no further thread can be had
                self._error = error
                self._end()
            self.stop()
            raise
        if not self._started:
            thread.join()
            self._raise_error()
        return self

    def stop(self) -> None:
        """End the guest if it still runs, and wait until nothing of it is left. Idempotent."""
        self._judge.decide(STOPPED)
        with self._lock:
            thread = self._thread
        # `say` runs in the machine's thread, and may want the end.
        if thread is not None and thread.ident is not None and thread is not threading.current_thread():
            thread.join()

    def wait(self, timeout: float | None = None) -> RunResult:
        """Wait for the end of the guest; returns how it ended. `timeout` is in seconds.

        Raises WaitTimeoutError if the guest runs on, and whatever made kvmbox itself fail.
        """
        if not self._used:
            raise UsageError("there is nothing to wait for: the machine was not started")
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ended.wait(slice_of(deadline)):
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(f"the guest still runs after {timeout:g} s")
        self._raise_error()
        assert self._result is not None
        return self._result

    def run_here(
        self,
        caller: Caller,
        timeline: Timeline | None = None,
        *,
        started: Callable[[], None] = lambda: None,
        settled: Callable[[RunResult], None] = lambda _result: None,
    ) -> RunResult:
        """Start it and run the guest to its end in this thread, as `caller` says.

        `started` hears that the guest is about to run, and `settled` hears the result before the processes
        and guest memory are closed. Raises KvmboxError where it could not start.
        """
        self._use_once()
        try:
            return self._run(caller, started, timeline, settled)
        finally:
            self._end()

    def forwarded(self, port: int, protocol: str = "tcp") -> int:
        """The port of the host that leads to `port` of the guest: `nets="user,forward=tcp:80"`.

        UsageError if there is none.
        """
        host: int = load("net.net_option", "forwarded")(self.config.of_part("nets"), port, protocol)
        return host

    def snapshot(self, path: str | os.PathLike[str]) -> None:
        """Write the whole machine, as it is now, to a file; the guest goes on. Waits until it is written.

        The file appears whole or not at all. Raises SnapshotFileError if it cannot be written, or if the
        guest ends before; UsageError if the machine was not started.
        """
        requests = self._requests
        if requests is None or threading.current_thread() is self._thread:
            raise UsageError("there is nothing to take a snapshot of: the machine was not started")
        if self.config.of_part("inject"):
            raise UsageError("--inject contradicts a snapshot of the machine", hint=NO_FAULTS_IN_SNAPSHOTS)
        load("snapshot.program_snapshots", "write")(os.fspath(path), requests)

    def __enter__(self) -> Self:
        return self if self._started else self.start()

    def __exit__(
        self, kind: _ErrorClass | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        # What made kvmbox itself fail must not get lost if nobody waits for the result.
        if error is None and not self._error_reported:
            self._raise_error()

    @property
    def running(self) -> bool:
        """Whether the guest runs."""
        return self._started and not self._ended.is_set()

    @property
    def result(self) -> RunResult | None:
        """How the guest ended, as `wait` returns it; None as long as it runs, and if it could not start."""
        return self._result

    # --- The console --------------------------------------------------------------------------------------

    @property
    def output(self) -> bytes:
        """What the console has shown so far, as far as its Capture keeps it."""
        return self._captured().output

    def send(self, data: bytes | str) -> None:
        """Type on the console. Never waits; see `Capture.send`."""
        self._captured().send(data)

    def type(self, text: str) -> None:
        """Type `text` on the keyboard, which is a US one. Never waits, also before the start: keys wait until
        the guest's keyboard has room. Raises UsageError for a character that no key types.
        """
        from kvmbox.run.api.keyboard_and_mouse import typed

        self._keys.send(typed(text))

    def press(self, keys: str) -> None:
        """Press keys of the keyboard together, and release them: "enter", "f1", "ctrl-alt-delete". Never
        waits. Raises UsageError for a key that the keyboard does not have.
        """
        from kvmbox.run.api.keyboard_and_mouse import chord

        self._keys.send(chord(keys))

    @property
    def mouse(self) -> Mouse:
        """The mouse of the guest."""
        from kvmbox.run.api.keyboard_and_mouse import Mouse

        return Mouse(self.config)

    def expect(
        self, pattern: str | bytes | re.Pattern[bytes], timeout: float | None = None
    ) -> re.Match[bytes]:
        """Wait until the console shows something that matches, behind what was found last: `Capture.expect`.

        Raises ExpectError if the time (in seconds) is over, or the guest has ended, without it.
        """
        console = self._captured()
        if not self._used:
            raise UsageError("there is nothing to wait for: the machine was not started")
        try:
            return console.expect(pattern, timeout)
        except ExpectError as error:
            outcome = self._judge.outcome
            if outcome is not None and error.hint is None:
                error.hint = f"the run ended: {outcome.reason}"
            raise

    def _captured(self) -> Capture:
        if self.console is None:
            raise UsageError("the console is on stdio: there is no Capture of it")
        return self.console

    # --- The screen ---------------------------------------------------------------------------------------

    @property
    def screen(self) -> TextScreen:
        """The text screen now, or as the guest has left it. The guest stands still for that
        moment. UsageError if the machine was not started.
        """
        from kvmbox.run.api.paused_calls import NoMachineError

        requests = self._requests
        if requests is None or threading.current_thread() is self._thread:
            raise UsageError("there is no screen to look at: the machine was not started")
        try:
            found = requests.ask(lambda machine: _already(machine.part("screen").read()))
        except NoMachineError:
            self._ended.wait()
            found = None if self._result is None else self._result.screen
        screen: TextScreen = load("screen.screen", "BLANK") if found is None else found
        return screen

    def expect_screen(self, pattern: str | re.Pattern[str], timeout: float | None = None) -> re.Match[str]:
        """Wait until the text on the screen has something that matches: a look each 50 ms.

        Raises ExpectError if the time (in seconds) is over, or the guest has ended, without it.
        """
        expect = load("screen.screens", "expect")
        found: re.Match[str] = expect(lambda: self.screen.forms, self._ended, pattern, timeout)
        return found

    def expect_picture(
        self, similar_to: str | os.PathLike[str] | Any, timeout: float | None = None, **how: Any
    ) -> Any:
        """Wait until the graphics on the screen are as in `similar_to`, an image file or a picture: returns
        the picture. `within` and `region` are those of `parts.screen.screens.expect_similar`.

        Raises ExpectError if the time (in seconds) is over, or the guest has ended, without it.
        """
        expect = load("screen.screens", "expect_similar")
        return expect(lambda: self.screen.picture, self._ended, similar_to, timeout, **how)

    # --- The machine's thread -----------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            self._run(Caller(), self._guest_runs, None)
        except BaseException as error:  # noqa: BLE001 - raised again in whoever waits
            self._error = error
        finally:
            self._end()
            self._begun.set()

    def _end(self) -> None:
        if self._requests is not None:
            self._requests.end()
        if self.config.start is not None:
            self.config.start.close()
        for capture in self._captures:
            capture.end()
        self._ended.set()

    def _guest_runs(self) -> None:
        self._started = True
        self._begun.set()

    def _run(
        self,
        caller: Caller,
        started: Callable[[], None],
        timeline: Timeline | None,
        settled: Callable[[RunResult], None] = lambda _result: None,
    ) -> RunResult:
        self._result = run(
            self.config,
            caller,
            judge=self._judge,
            say=self._report,
            started=started,
            settled=settled,
            timeline=timeline,
            requests=self._requests,
        )
        return self._result

    def _report(self, line: str) -> None:
        self.messages.append(line)
        if self._say is not None:
            self._say(line)

    def _use_once(self, requests: Requests | None = None) -> None:
        with self._lock:
            if self._used:
                raise UsageError("a machine runs once: make another one")
            self._used, self._requests = True, requests

    def _raise_error(self) -> None:
        if self._error is not None:
            self._error_reported = True
            raise self._error


def _already(found: Any) -> Callable[[], Any]:
    """The answer of a request that has nothing left to do."""
    return lambda: found


def find_image(image: str) -> tuple[str, bool]:
    """The file of an image, and whether it is a bundled one that is flat. A file goes first."""
    found = bundled.find(image)
    if found is None or os.path.exists(image):
        return image, False
    return found, bundled.is_flat(found)


def _debugcon(backend: str | Capture, console: Capture | None) -> SerialSpec:
    spec = parse_debugcon(backend)
    return SerialSpec(spec.port, "auto", capture=console) if spec.kind == "auto" else spec
