"""The outermost handler: whatever a command does, one status, never 1, and one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import click
import pytest

from kvmbox.base import errors
from kvmbox.cli import exit_status, main, messages
from kvmbox.cli.main import run_command
from kvmbox.host.process import early_signals


class Raising:
    """Stands in for the command group: calls `action` instead of a command."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action

    def main(self, *_: object, **__: object) -> object:
        return self._action()


def run_with(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object], *arguments: str) -> int:
    monkeypatch.setattr(main, "cli", Raising(action))
    return run_command(list(arguments))


def raising(error: BaseException) -> Callable[[], object]:
    def action() -> object:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (errors.KvmboxError("odd things"), 14, "kvmbox: error: odd things"),
        (errors.UsageError("not so"), 2, "kvmbox: error: not so"),
        (errors.StartError("no start"), 4, "kvmbox: error: no start"),
        (errors.ImageError("no image"), 4, "kvmbox: error: no image"),
        (errors.KvmError("no kvm"), 4, "kvmbox: error: no kvm"),
        (errors.SandboxError("no box"), 4, "kvmbox: error: no box"),
        (errors.DeviceProcessError("uart", "is hung"), 8, "kvmbox: error: device process 'uart' is hung"),
        (errors.UnknownExitError("exit 99"), 10, "kvmbox: error: exit 99"),
        (errors.HostOutputError("disk full"), 14, "kvmbox: error: disk full"),
        (click.UsageError("bad word"), 2, "kvmbox: error: bad word"),
        (click.BadParameter("bad value"), 2, "kvmbox: error: Invalid value: bad value"),
        (click.ClickException("clicked"), 2, "kvmbox: error: clicked"),
        # click's answer to a broken pipe; 1 would be the guest's word.
        (SystemExit(1), 14, "kvmbox: error: cannot write to stdout: nobody reads it any more"),
        (
            OSError(errno.EPIPE, "Broken pipe"),
            14,
            "kvmbox: error: a system call failed: Broken pipe",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            14,
            "kvmbox: error: a system call failed on '/x': No space left on device",
        ),
        (MemoryError(), 14, "kvmbox: error: out of memory"),
        (ValueError("a bug"), 14, "kvmbox: error: internal error: ValueError: a bug"),
        (RecursionError("deep"), 14, "kvmbox: error: internal error: RecursionError: deep"),
        (GeneratorExit(), 14, "kvmbox: error: internal error: GeneratorExit: "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_error_gives_its_status_and_one_line(
    error: BaseException,
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_with(monkeypatch, raising(error)) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[0] == line
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interruption_gives_130_in_silence(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(monkeypatch, raising(error)) == 130
    assert capsys.readouterr().err == ""


class Interrupted(main.LazyGroup):
    """Each command of it is interrupted."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        return click.Command(cmd_name, callback=raising(KeyboardInterrupt()))


@pytest.mark.parametrize(("name", "told"), [("audit", "kvmbox: interrupted\n"), ("run", "")])
def test_interruption_prints_no_empty_line(name: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([name], Interrupted()) == 130
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(("name", "told"), [("audit", True), ("qtest", True), ("run", False)])
def test_interruption_is_told_where_no_guest_was_to_run(
    name: str, told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(monkeypatch, raising(click.Abort()), name) == 130
    assert capsys.readouterr().err == ("kvmbox: interrupted\n" if told else "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("rnu",), "No such command 'rnu'.\nhint: did you mean 'kvmbox run'?"),
        (("--run",), "hint: did you mean 'kvmbox run'?"),
        (("frobnicate",), "No such command 'frobnicate'.\nhint: try 'kvmbox --help'\n"),
        (("run", "--memroy", "1M", "hello64"), "option '--memroy'. Did you mean '--memory'?\n"),
    ],
)
def test_what_was_meant_is_named(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(list(arguments)) == 2
    assert told in capsys.readouterr().err


def test_hint_is_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_with(monkeypatch, raising(errors.KvmError("no kvm", hint="load the module")))
    assert capsys.readouterr().err == "kvmbox: error: no kvm\nhint: load the module\n"


@pytest.mark.parametrize("error", [ValueError("a bug"), errors.KvmError("no kvm"), OSError(errno.EIO, "bad")])
def test_debug_shows_where(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_with(monkeypatch, raising(error), "run", "--debug")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("returned", "status"), [(0, 0), (3, 3), (124, 124), (None, 0)])
def test_what_a_command_returns_is_the_status(
    returned: int | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_with(monkeypatch, lambda: returned) == status


def test_report_survives_a_stderr_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, _: str) -> int:
            raise OSError(errno.EPIPE, "Broken pipe")

        def flush(self) -> None:
            raise OSError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("sys.stderr", Gone())
    messages.report("nobody hears this", "nor this")


def test_threads_that_cannot_be_had_are_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(monkeypatch, raising(RuntimeError("can't start new thread"))) == 14
    message = capsys.readouterr().err
    assert "cannot start another thread" in message
    assert "report" not in message


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["guests"], ["--version"], ["run", "--help"]])
def test_stdout_that_takes_nothing_is_named_once(arguments: list[str], buffered: str) -> None:
    entry = "from kvmbox.cli.entry import entry_point; entry_point()"
    for path, mode, reason in (
        (
            "/dev/full",
            os.O_WRONLY,
            "No space left on device\nhint: make room on the disk, or choose another directory",
        ),
        (os.devnull, os.O_RDONLY, "Bad file descriptor"),
    ):
        descriptor = os.open(path, mode)
        done = subprocess.run(
            [sys.executable, "-c", entry, *arguments],
            stdout=descriptor,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={"PYTHONUNBUFFERED": buffered},
        )
        os.close(descriptor)
        assert (done.returncode, done.stderr) == (14, f"kvmbox: error: cannot write to stdout: {reason}\n")


@pytest.mark.parametrize(
    ("arguments", "page"),
    [
        (["bench", "--only"], "bench --help"),
        (["run", "--memory"], "run --help"),
        (["run"], "run --help"),
        (["nope"], "--help"),
    ],
)
def test_usage_error_points_to_the_page_of_its_command(
    arguments: list[str], page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(arguments) == 2
    assert capsys.readouterr().err.endswith(f"hint: try 'kvmbox {page}'\n")


class Phase:
    """Stands in for `early_signals`: remembers each change of `breakable`."""

    def __init__(self) -> None:
        self.changes: list[bool] = []
        self.raising = False

    @property
    def breakable(self) -> bool:
        return bool(self.changes) and self.changes[-1]

    @breakable.setter
    def breakable(self, value: bool) -> None:
        self.changes.append(value)


def test_only_the_main_thread_says_that_its_write_may_be_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    phase = Phase()
    monkeypatch.setattr(messages, "early_signals", phase)
    other = threading.Thread(target=messages.say, args=["from another thread"])
    other.start()
    other.join()
    assert phase.changes == []
    messages.say("from the main thread")
    assert phase.changes == [True, False]
    assert capsys.readouterr().err == "from another thread\nfrom the main thread\n"


@pytest.mark.parametrize(("argument", "status"), [("--version", 130), ("--nope", 2)])
def test_interruption_of_the_end_leaves_a_failure_as_it_is(argument: str, status: int) -> None:
    code = """
from kvmbox.host.process import early_signals
from kvmbox.cli import main

def interrupt():
    raise KeyboardInterrupt

early_signals.exit_callbacks.append(interrupt)
main.entry_point()
"""
    done = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, check=False)
    assert done.returncode == status


def test_failure_of_the_last_flush_cannot_be_interrupted_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    reported: list[tuple[bool, str]] = []
    monkeypatch.setattr("sys.stdout", Full())
    monkeypatch.setattr(
        exit_status, "report", lambda text, _hint: reported.append((early_signals.breakable, text))
    )
    assert exit_status.flush(0) == messages.FAILED
    assert reported == [(False, "cannot write to stdout: No space left on device")]


def test_note_with_control_characters_is_one_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    messages.note("core file 'a\x1b[31m\x9b' written")
    assert capsys.readouterr().err == "kvmbox: core file 'a\\x1b[31m\\x9b' written\n"
