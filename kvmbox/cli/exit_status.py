"""How every command ends: whatever it does becomes one exit status, and at most one line.

This is the one outermost handler. Nothing that a command raises may end in status 1, which would mean
"the guest wrote 0 to the debug-exit port", nor in a traceback, unless --debug asks for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from kvmbox.base.errors import HostOutputError, KvmboxError, StartError
from kvmbox.base.light_typing import signal
from kvmbox.cli.messages import FAILED, INTERRUPTED, report, say
from kvmbox.cli.standard_streams import STDOUT, name_stdout_in_errors, open_standard_descriptors
from kvmbox.host.process import early_signals


def guarded(
    work: Callable[[], object],
    *,
    debug: bool,
    raising: bool,
    known: Callable[[BaseException], int | None] = lambda _error: None,
) -> int:
    """Do `work`, which returns an exit status or None, and return the status. Never raises.

    `raising` says whether a signal interrupts the work from the start. `known` gives the status of exceptions
    that this module does not know, and reports them.
    """
    try:
        try:
            early_signals.raising = raising
            status = work()
            sys.stdout.flush()
            early_signals.raising = False
            if not early_signals.answered:
                early_signals.check()
            return status if isinstance(status, int) else 0
        finally:
            # What ends the command is decided. No call before this statement: Python runs handlers in calls.
            early_signals.raising = False
    except BaseException as error:  # noqa: BLE001 - the outermost handler: a bug is status 14, not 1
        found = known(error)
        return _status_of(error, debug) if found is None else found


def _status_of(error: BaseException, debug: bool) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, MemoryError):
        from kvmbox.host.process.threads import why_no_memory

        report("out of memory", why_no_memory())
        return FAILED
    _trace(debug)
    if isinstance(error, KvmboxError):
        hint = error.hint
        if not hint:
            # A confined VMM, or one without memory, may not be able to load it, or its bytecode is damaged.
            with suppress(Exception):
                from kvmbox.cli.error_hints import advice

                hint = advice(error)
        report(str(error), hint)
        return error.exit_status
    if isinstance(error, OSError):
        return _status_of_system_call(error, debug)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        from kvmbox.host.process.threads import why_no_thread

        report("cannot start another thread", why_no_thread())
    else:
        report(
            f"internal error: {type(error).__name__}: {error}",
            None if debug else "please report this with the output of the same command and --debug",
        )
    return FAILED


def _status_of_system_call(error: OSError, debug: bool) -> int:
    if error.filename == STDOUT:
        return _stdout_lost(error)
    if isinstance(error, FileNotFoundError):
        from kvmbox.cli.error_hints import has_directory

        if not has_directory():
            report("the working directory was removed", "cd to another directory first")
            return StartError.exit_status
    where = f" on '{error.filename}'" if error.filename else ""
    report(
        f"a system call failed{where}: {error.strerror or error}", None if debug else "--debug shows where"
    )
    return FAILED


def _stdout_lost(error: OSError) -> int:
    lost = HostOutputError(f"cannot write to stdout: {error.strerror}")
    lost.__cause__ = error
    return _status_of(lost, debug=False)


def _trace(wanted: bool) -> None:
    """The traceback of the exception that is being handled, if --debug asks for it."""
    if wanted:
        import traceback

        say(traceback.format_exc().rstrip())


def end_with(work: Callable[[], int]) -> NoReturn:
    """Do the `work` of a script, which does not raise, and end the process with the status it returns."""
    status: int | None = None
    try:
        open_standard_descriptors()
        name_stdout_in_errors()
        status = work()
        # Whoever interrupts a command does not wait for its output.
        if status != INTERRUPTED:
            status = flush(status)
        # Handlers of commands, too, have had their say.
        signal.pthread_sigmask(signal.SIG_BLOCK, early_signals.END_SIGNALS)
        for end in early_signals.exit_callbacks:
            end()
    except KeyboardInterrupt:
        # A failure that is decided stays, as in `flush`.
        status = status or INTERRUPTED
    finally:
        # Daemon threads may sit in a write that never returns; nothing is left to clean up.
        os._exit(FAILED if status is None else status)


def flush(status: int) -> int:
    """Write out what the command left in stdout's buffer; returns the status that this makes of `status`."""
    early_signals.breakable = True
    try:
        sys.stdout.flush()
    except KeyboardInterrupt:
        return status or INTERRUPTED
    except OSError as error:
        early_signals.breakable = False  # no signal interrupts the failure from here on
        if not status:
            return _stdout_lost(error)
    finally:
        early_signals.breakable = False
    return status
