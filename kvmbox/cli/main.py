"""The `kvmbox` command: finds the subcommand, and reports what click refuses."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Final, NoReturn

import click

from kvmbox import __version__
from kvmbox.cli.config import file_settings
from kvmbox.cli.exit_status import end_with, guarded
from kvmbox.cli.messages import FAILED, INTERRUPTED, USAGE, report, say
from kvmbox.cli.run.quick_parser import COMPLETION_VARIABLE
from kvmbox.host.process import early_signals

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

IN_FOLDERS: Final = ("bench", "config", "doctor", "run", "smoke")
"""The commands of more than three modules."""

COMMANDS: Final = {name: text for section in SECTIONS.values() for name, text in section.items()}


EXAMPLES: Final = (
    ("kvmbox run hello32", "boots a bundled guest"),
    ("kvmbox run kernel.elf --timeout 10 --expect passed", "a test of a kernel"),
    ("kvmbox smoke suite.toml -j auto", "boots many, and judges each"),
    ("kvmbox doctor", "tells whether this host can do that"),
)


def module_of(command: str) -> str:
    """The module of a command, which has it under the name `command`."""
    return f"kvmbox.cli.{command}.command" if command in IN_FOLDERS else f"kvmbox.cli.{command}"


class LazyGroup(click.Group):
    """Imports a command's module when it is called: `kvmbox run` must not pay for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now, or None for a name that is none."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(module_of(cmd_name)).command
        early_signals.raising = True
        early_signals.check()
        file_settings.apply(ctx, command, cmd_name, COMMANDS)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Call the command. Where it is interrupted, click would print an empty line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.Abort from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help, without importing them."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))
        with formatter.section("Examples"):
            formatter.write_dl(list(EXAMPLES))


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="kvmbox")
def cli() -> None:
    """Boot small x86 guests on /dev/kvm, every legacy device in its own sandboxed process."""


def run_command(arguments: list[str], command: click.Command | None = None, name: str = "kvmbox") -> int:
    """Run one command line of the script `name`; returns the exit status. Never raises."""
    return guarded(
        lambda: (command or cli).main(arguments, prog_name=name, standalone_mode=False),
        debug="--debug" in arguments,
        raising=command is not None,
        known=lambda error: _status_of(error, arguments),
    )


def _status_of(error: BaseException, arguments: list[str]) -> int | None:
    """The status of what click raises, which is reported here."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return USAGE
    if isinstance(error, click.UsageError):
        report(*_message_and_hint(error, arguments))
        return USAGE
    if isinstance(error, click.ClickException):
        report(error.format_message())
        return USAGE
    if isinstance(error, SystemExit):
        if COMPLETION_VARIABLE in os.environ:  # a shell asks for the words that fit
            return error.code if isinstance(error.code, int) else 0
        # click's own answer to a broken pipe is exit(1), which here would be a status of the guest.
        report("cannot write to stdout: nobody reads it any more")
        return FAILED
    if isinstance(error, click.Abort):
        if arguments[:1] in (["audit"], ["qtest"]):
            say("kvmbox: interrupted")
        return INTERRUPTED
    return None


def _message_and_hint(error: click.UsageError, arguments: list[str]) -> tuple[str, str]:
    if isinstance(error, click.NoSuchOption) and arguments[:1] == ["run"]:
        from kvmbox.cli.qemu_hints import advice

        if (found := advice(arguments, error.option_name)) is not None:
            word, hint = found
            return f"No such option '{word}'.", hint
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        del error.possibilities[1:]  # click would sort them by name
    if error.ctx is not None and error.ctx.command is cli:
        from difflib import get_close_matches

        if close := get_close_matches(arguments[0], COMMANDS, 1):
            return error.format_message(), f"did you mean 'kvmbox {close[0]}'? 'kvmbox --help' lists commands"
    return " ".join(error.format_message().split()), f"try 'kvmbox {_command_of(error, arguments)}--help'"


def _command_of(error: click.UsageError, arguments: list[str]) -> str:
    # click's parser knows no context where an option lacks its value.
    name = error.ctx.info_name if error.ctx is not None else next(iter(arguments), None)
    return f"{name} " if name in COMMANDS else ""


def entry_point(command: click.Command | None = None, name: str = "kvmbox") -> NoReturn:
    """The `kvmbox` script, or another one that ends the same way."""
    end_with(lambda: run_command(sys.argv[1:], command, name))
