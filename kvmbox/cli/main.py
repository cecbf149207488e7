"""The `kvmbox` command: finds the subcommand, and turns whatever happens into one exit status.

This is the one outermost handler. Nothing that a command raises may end in status 1, which would mean
"the guest wrote 0 to the debug-exit port", nor in a traceback, unless --debug asks for it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib import import_module
from typing import Final, NoReturn

import click

from kvmbox import __version__, early
from kvmbox.cli import defaults
from kvmbox.cli.descriptors import STDOUT, name_stdout_in_errors, open_standard_descriptors
from kvmbox.errors import KvmboxError, StartError

FAILED: Final = 14
INTERRUPTED: Final = 130
USAGE: Final = 2

COMPLETION_VARIABLE: Final = "_KVMBOX_COMPLETE"
"""How the scripts of `kvmbox completion` ask click for words."""

SECTIONS: Final = {
    "Guests": {
        "run": "boot a guest",
        "smoke": "boot a suite of guests, and judge each",
        "inspect": "show what an image is, and how it boots",
        "profile": "show the hottest functions of a profile",
        "guests": "list the bundled guests",
    },
    "Host and sandbox": {
        "doctor": "check this host, and show remedies",
        "policy": "show what each process may do, or simulate a system call",
        "audit": "attack the sandbox, and show what stopped each attack",
        "bench": "measure the cost of isolation on this host",
    },
    "Devices": {
        "qtest": "test the devices with QEMU's qtest protocol, without a CPU",
        "replay": "replay a recording and compare the replies",
        "trace": "summarise a recording, or export it to Perfetto",
    },
    "Comfort": {
        "config": "show the defaults that configuration files set",
        "completion": "print a script that completes commands in a shell",
    },
}
"""The commands by purpose."""

COMMANDS: Final = {name: text for section in SECTIONS.values() for name, text in section.items()}


EXAMPLES: Final = (
    ("kvmbox run hello32", "boots a bundled guest"),
    ("kvmbox run kernel.elf --timeout 10 --expect passed", "a test of a kernel"),
    ("kvmbox smoke suite.toml -j auto", "boots many, and judges each"),
    ("kvmbox doctor", "tells whether this host can do that"),
)


class LazyGroup(click.Group):
    """Imports a command's module when it is called: `kvmbox run` must not pay for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now, or None for a name that is none."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"kvmbox.cli.{cmd_name}").command
        early.raising = True
        early.check()
        defaults.apply(ctx, command, cmd_name, COMMANDS)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help, without importing them."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))
        with formatter.section("Examples"):
            formatter.write_dl(list(EXAMPLES))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="kvmbox")
def cli() -> None:
    """Boot small x86 guests on /dev/kvm, every legacy device in its own sandboxed process."""


def say(text: str) -> None:
    """A line for the person, on stderr. stderr may be gone: that must not change the exit status.

    Nor must it be why kvmbox does not end: where a signal ends nothing else any more, the third one ends a
    write to a pipe that nobody reads.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    try:
        if main_thread:  # what another thread stored here could outlast the main thread's own write
            early.breakable = True
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        return
    except KeyboardInterrupt:
        if early.raising:
            raise
    finally:
        if main_thread:
            early.breakable = False


def note(text: str) -> None:
    """What happens in a run, for the person. Names and values in it may be anybody's."""
    say(f"kvmbox: {_printable(text)}")


def report(message: str, hint: str | None = None) -> None:
    """The one line that says what failed, and the hint. Names and values in them may be anybody's."""
    message, hint = _printable(message), hint and _printable(hint)
    error_word, hint_word = "error:", "hint:"
    if _has_colours():
        error_word, hint_word = "\x1b[1;31merror:\x1b[0m", "\x1b[1mhint:\x1b[0m"
    say(f"kvmbox: {error_word} {message}" + (f"\n{hint_word} {hint}" if hint else ""))


def _printable(text: str) -> str:
    """The text without what would move the cursor of a terminal, or worse. Lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def _has_colours() -> bool:
    """Whether stderr is a terminal whose user wants colours (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        return os.isatty(2)
    except OSError:
        return False


def run_command(arguments: list[str], command: click.Command | None = None, name: str = "kvmbox") -> int:
    """Run one command line of the script `name`; returns the exit status. Never raises."""
    debug = "--debug" in arguments
    try:
        try:
            early.raising = command is not None
            status = (command or cli).main(arguments, prog_name=name, standalone_mode=False)
            sys.stdout.flush()
            early.raising = False
            if not early.answered:
                early.check()
            return status if isinstance(status, int) else 0
        finally:
            # What ends the command is decided. No call before this statement: Python runs handlers in calls.
            early.raising = False
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.UsageError as error:
        report(error.format_message(), f"try 'kvmbox {_command_of(error, arguments)}--help'")
        return USAGE
    except click.ClickException as error:
        report(error.format_message())
        return USAGE
    except SystemExit as end:
        if COMPLETION_VARIABLE in os.environ:  # a shell asks for the words that fit
            return end.code if isinstance(end.code, int) else 0
        # click's own answer to a broken pipe is exit(1), which here would be a status of the guest.
        report("cannot write to stdout: nobody reads it any more")
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except KvmboxError as error:
        _trace(debug)
        report(str(error), error.hint)
        return error.exit_status
    except OSError as error:
        _trace(debug)
        if error.filename == STDOUT:
            report(f"cannot write to stdout: {error.strerror}")
            return FAILED
        if isinstance(error, FileNotFoundError) and not _has_directory():
            report("the working directory was removed", "cd to another directory first")
            return StartError.exit_status
        where = f" on '{error.filename}'" if error.filename else ""
        report(
            f"a system call failed{where}: {error.strerror or error}",
            None if debug else "--debug shows where",
        )
        return FAILED
    except MemoryError:
        report("out of memory")
        return FAILED
    except RuntimeError as error:
        _trace(debug)
        if "can't start new thread" not in str(error):
            return _internal_error(error, debug)
        report("cannot start another thread", "look at the limits of memory and processes: 'ulimit -v -u'")
        return FAILED
    except BaseException as error:  # noqa: BLE001 - the outermost handler: a bug is status 14, not 1
        _trace(debug)
        return _internal_error(error, debug)


def _has_directory() -> bool:
    """Whether the working directory still exists: without one, no relative path means anything."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _internal_error(error: BaseException, debug: bool) -> int:
    report(
        f"internal error: {type(error).__name__}: {error}",
        None if debug else "please report this with the output of the same command and --debug",
    )
    return FAILED


def _trace(wanted: bool) -> None:
    """The traceback of the exception that is being handled, if --debug asks for it."""
    if wanted:
        import traceback

        say(traceback.format_exc().rstrip())


def _command_of(error: click.UsageError, arguments: list[str]) -> str:
    # click's parser knows no context where an option lacks its value.
    name = error.ctx.info_name if error.ctx is not None else next(iter(arguments), None)
    return f"{name} " if name in COMMANDS else ""


def entry_point(command: click.Command | None = None, name: str = "kvmbox") -> NoReturn:
    """The `kvmbox` script, or another one that ends the same way."""
    status: int | None = None
    try:
        open_standard_descriptors()
        name_stdout_in_errors()
        status = run_command(sys.argv[1:], command, name)
        # Whoever interrupts a command does not wait for its output.
        if status != INTERRUPTED:
            status = _flush(status)
        # Handlers of commands, too, have had their say.
        signal.pthread_sigmask(signal.SIG_BLOCK, early.END_SIGNALS)
        for end in early.exit_callbacks:
            end()
    except KeyboardInterrupt:
        # A failure that is decided stays, as in `_flush`.
        status = status or INTERRUPTED
    finally:
        # Daemon threads may sit in a write that never returns; nothing is left to clean up.
        os._exit(FAILED if status is None else status)


def _flush(status: int) -> int:
    """Write out what the command left in stdout's buffer; returns the status that this makes of `status`."""
    early.breakable = True
    try:
        sys.stdout.flush()
    except KeyboardInterrupt:
        return status or INTERRUPTED
    except OSError as error:
        early.breakable = False  # no signal interrupts the failure from here on
        if not status:
            report(f"cannot write to stdout: {error.strerror}")
            return FAILED
    finally:
        early.breakable = False
    return status
