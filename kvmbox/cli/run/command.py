"""`kvmbox run`: the options as click reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from kvmbox.boot.plan import BUILTIN_BIOS, NO_BIOS
from kvmbox.cli.click_options import takes
from kvmbox.cli.help_sections import SectionedCommand
from kvmbox.cli.run.execute import Line, carry_out
from kvmbox.cli.run.quick_parser import STARTERS
from kvmbox.run.options.option_table import SECTIONS
from kvmbox.run.part_loader import load

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXAMPLES: Final = (
    ("kvmbox run hello32", "a bundled guest"),
    ("kvmbox run kernel.elf --timeout 10 --expect 'All tests passed' --fail-on PANIC", "a test in CI"),
    ("kvmbox run bzImage --initrd initrd.gz --append 'console=ttyS0' --memory 1G", "a Linux kernel"),
    ("kvmbox run kernel.elf --serial COM2=file:trace.log --stats", "a second serial port, and statistics"),
    ("kvmbox run kernel.elf --snapshot-when 'login: =booted.snap'", "a snapshot for 'kvmbox run --from'"),
    ("kvmbox run kernel.elf --watch", "each build of a kernel is booted"),
)


def _complete_guest(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from kvmbox.cli.completion import complete_guest

    return complete_guest(context, parameter, incomplete)


def _complete_fault(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from kvmbox.cli.completion import complete_fault

    return complete_fault(context, parameter, incomplete)


@click.command("run", cls=SectionedCommand, short_help="boot a guest", sections=SECTIONS, examples=EXAMPLES)
@click.argument("guest", required=False, shell_complete=_complete_guest)
@takes(*SECTIONS, defaults=False, completions={"inject": _complete_fault})
def command(**options: Any) -> int:
    """Boot GUEST on /dev/kvm.

    GUEST is an image file or the name of a bundled guest (see 'kvmbox guests'). The console of the guest
    (COM1 and the debug console) is connected to stdin and stdout. On a terminal, Ctrl-A X ends the run and
    Ctrl-A H shows help.

    \b
    Exit status: an odd status comes from the guest, an even one from kvmbox.
      0    clean stop, or all --expect seen       odd  debug-exit: (value << 1 | 1) & 0xff
      2    usage error                            4    the run could not start
      6    the guest crashed                      8    a device process failed
      10   KVM internal error or unknown exit     12   --fail-on seen, or --expect not fulfilled
      14   kvmbox or its output failed            124  --timeout expired
      130  ended by a signal or by Ctrl-A X
    """
    if "help" in options["inject"]:
        load("inject.fault_table", "FAULTS")
        from kvmbox.cli.run.inject_help import list_faults

        list_faults()
        return 0
    context = click.get_current_context()
    line = line_of(context)
    no_image = line.guest is None and not STARTERS & line.values.keys()
    if no_image and line.values.get("bios") in (None, BUILTIN_BIOS, NO_BIOS):
        raise click.MissingParameter(ctx=context, param_hint="'GUEST'", param_type="argument")
    return carry_out(line)


def line_of(context: click.Context) -> Line:
    """What click has read."""
    values = dict(context.params)
    guest = values.pop("guest")
    sources = {name: context.get_parameter_source(name) for name in values}
    given = (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)
    return Line(
        guest,
        {name: value for name, value in values.items() if sources[name] in given},
        frozenset(name for name in values if sources[name] is ParameterSource.COMMANDLINE),
    )
