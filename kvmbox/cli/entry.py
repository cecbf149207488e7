"""Where the scripts start: signals first, everything else after.

The interpreter and our imports take tens of milliseconds. A signal that comes then must end kvmbox with
status 130, as later; Python's own answer would be a traceback, or death by the signal. The launcher holds
signals back until this module's handlers stand (docs/adr/launcher.md).
"""

from __future__ import annotations

import gc
import os
import sys

from kvmbox.base import bytecode
from kvmbox.base.light_typing import signal
from kvmbox.cli.standard_streams import open_standard_descriptors
from kvmbox.host.process import early_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final, NoReturn

INTERRUPTED: Final = 130
COULD_NOT_START: Final = 4
OTHER_SPAWNER: Final = ("-h", "--help", "--without", "--watch")
"""Options of `kvmbox run` that want no spawner, or another one."""
SAME_SPAWNER: Final = {"--sandbox": ("process", "per-device"), "--seccomp": ("filter",)}
"""Options of which some values, these, want the spawner of a plain run."""


def _options(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """Each word of the command line with the value that it has if it is an option with one."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        yield name, value if equals else following


def _has_plain_device_processes(arguments: list[str]) -> bool:
    """Whether this is a `kvmbox run` whose spawner is surely wanted; a wrong no costs 20 ms."""
    return arguments[:1] == ["run"] and not any(
        name in OTHER_SPAWNER or (name in SAME_SPAWNER and value not in SAME_SPAWNER[name])
        for name, value in _options(arguments)
    )


def _wants_scope(arguments: list[str]) -> bool:
    """Whether this is a `kvmbox run`, which confines itself, and is to have all of that."""
    return arguments[:1] == ["run"] and ("--without", "vmm-scopes") not in _options(arguments)


def entry_point(parent: int | None = None) -> NoReturn:
    """The `kvmbox` script. As a child of kvmbox it ends when `parent`, a pid, does
    (`host.process.child_command`).
    """
    try:
        _begin()
        if parent is not None:
            from kvmbox.jail import linux

            linux.die_with_parent(parent, signal.SIGTERM)
        if sys.argv[1:2] == ["run"]:
            # Imports make no garbage. `kvmbox run` enables the collection again when the guest is to run.
            gc.disable()
            bytecode.load("prestart")
        if _wants_scope(sys.argv[1:]):
            from kvmbox.sandbox import scope

            scope.OWN.take()
        if _has_plain_device_processes(sys.argv[1:]):
            from kvmbox.host.files import descriptor_limit
            from kvmbox.remote.process import prestart

            # The spawner inherits the limit. Where it is too low, `kvmbox run` says so.
            if descriptor_limit.enough()[0]:
                descriptor_limit.allow_enough()
                prestart.OWN.start()
        work = _work()
        early_signals.check()
    except BaseException as error:  # noqa: BLE001 - Python's own answer is status 1, as if from the guest
        _leave(error)
    work()


def _work() -> Callable[[], NoReturn]:
    """What the command line asks for. A run that is spelled plainly does without click."""
    if sys.argv[1:2] == ["run"]:
        bytecode.load("run")
        from kvmbox.cli import exit_status
        from kvmbox.cli.run import execute, quick_parser

        line = quick_parser.read(sys.argv[2:])
        if line is not None:
            return lambda: exit_status.end_with(
                lambda: exit_status.guarded(
                    lambda: execute.carry_out(line), debug="debug" in line.values, raising=True
                )
            )
    from kvmbox.cli import main

    return main.entry_point


def system_x86_64() -> NoReturn:
    """The `kvmbox-system-x86_64` script."""
    try:
        _begin()
        from kvmbox.cli import system_x86_64 as program

        early_signals.check()
    except BaseException as error:  # noqa: BLE001 - as above
        _leave(error)
    program.entry_point()


def _begin() -> None:
    """What comes first of all."""
    early_signals.listen()
    open_standard_descriptors()
    bytecode.use()
    try:  # `pkill kvmbox` finds it: the kernel has named the process after the interpreter
        with open("/proc/self/comm", "wb", buffering=0) as comm:
            comm.write(b"kvmbox")
    except OSError:  # no /proc
        pass


def _leave(error: BaseException) -> NoReturn:
    """End before there is a command: interrupted, or not even imported; said with what there is by then."""
    try:
        for end in early_signals.exit_callbacks:
            end()
        if isinstance(error, KeyboardInterrupt):
            os._exit(INTERRUPTED)
        if "--debug" in sys.argv:
            sys.excepthook(type(error), error, error.__traceback__)
        text = f"kvmbox: error: kvmbox cannot be loaded: {type(error).__name__}: {error}\n"
        os.write(
            2, f"{text}hint: look at the limits of this process: 'ulimit -n -v'\n".encode(errors="replace")
        )
    finally:
        os._exit(COULD_NOT_START)
