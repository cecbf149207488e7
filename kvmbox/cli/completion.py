"""`kvmbox completion`: scripts with which shells complete the words of a command line.

click writes the scripts. A script starts `kvmbox` with a variable in the environment
(`quick_parser.COMPLETION_VARIABLE`), and click answers with the words that fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from kvmbox.cli.click_options import takes

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SHELLS: Final = ("bash", "zsh", "fish")


@click.command("completion", short_help="print a script that completes commands in a shell")
@click.argument("shell", type=click.Choice(SHELLS))
@takes()
def command(shell: str) -> int:
    """Print a script with which SHELL completes commands, options, their values, and guests.

    \b
    bash  eval "$(kvmbox completion bash)"       in ~/.bashrc
    zsh   eval "$(kvmbox completion zsh)"        in ~/.zshrc, after compinit
    fish  kvmbox completion fish | source        in ~/.config/fish/config.fish

    \b
    Exit status:
      0    the script is printed
      2    usage error
      14   the output could not be written
    """
    from click.shell_completion import get_completion_class

    from kvmbox.cli.main import cli
    from kvmbox.cli.run.quick_parser import COMPLETION_VARIABLE

    shell_class = get_completion_class(shell)
    assert shell_class is not None  # click knows all of SHELLS
    script = shell_class(cli, {}, "kvmbox", COMPLETION_VARIABLE)
    # Not `source()`, which starts bash to ask for its version.
    click.echo(script.source_template % script.source_vars())
    return 0


def complete_guest(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The bundled guests and the files that begin like this."""
    from click.shell_completion import CompletionItem

    from kvmbox.boot import bundled

    del context, parameter
    names = sorted({guest["guest"] for guest in bundled.runs() if guest["guest"].startswith(incomplete)})
    # A script that gets words and a type for files takes only the words.
    return [*map(CompletionItem, names)] or [CompletionItem(incomplete, type="file")]


def complete_fault(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """What can stand at the end of `incomplete`, a value of `--inject`: a device, or one of its faults."""
    from click.shell_completion import CompletionItem

    from kvmbox.cli.run.inject_help import words

    del context, parameter
    return [*map(CompletionItem, words(incomplete))]
