"""`kvmbox audit`: let something in a device process try to get out, and tell what stopped it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import click

from kvmbox.base.errors import UsageError
from kvmbox.cli.click_options import IPC, SECCOMP, output, takes, transport
from kvmbox.cli.click_types import given
from kvmbox.cli.json_files import for_people, open_output, write_output
from kvmbox.cli.text_tables import print_table
from kvmbox.host.files.descriptor_limit import allow_enough
from kvmbox.host.process import early_signals
from kvmbox.run.options.definition import FLAG, REPEATED, Option

if TYPE_CHECKING:
    from kvmbox.remote.process.device_pool import Seccomp
    from kvmbox.tools.audit.run_audit import Report


# The formatter would give each cell a line of its own.
# fmt: off
OPTIONS: Final = (
    Option("types", "Audit only this device type or thread of kvmbox (vmm-main, vmm-vcpu). May be repeated.",
           flag="--type", kind=REPEATED, metavar="TYPE"),
    Option("probes", "Run only this probe. May be repeated.", flag="--probe", kind=REPEATED, metavar="PROBE"),
    SECCOMP,
    IPC,
    Option("without", "Do not use this sandbox layer. May be repeated.", kind=REPEATED, metavar="LAYER"),
    Option("control", "Use no sandbox layer: every probe should succeed.", kind=FLAG),
    Option("matrix", "Run the first type with each layer alone, and without each layer.", kind=FLAG),
    output("json_path", "the report", "--json"),
)
# fmt: on


@click.command("audit", short_help="attack the sandbox, and show what stopped each attack")
@takes(*OPTIONS)
def command(
    types: tuple[str, ...],
    probes: tuple[str, ...],
    seccomp: Seccomp,
    ipc: str,
    without: tuple[str, ...],
    control: bool,
    matrix: bool,
    json_path: str | None,
) -> int:
    """Attack the sandbox from inside, and show which layer stopped each attack.

    Each device process runs a payload instead of its device models. The payload tries to escape from the
    sandbox. A successful attack is harmless: its targets are files, sockets and processes that the audit has
    created.

    \b
    kvmbox audit                       all layers, all device types, the threads of kvmbox itself
    kvmbox audit --control             no layer: shows that the attacks work
    kvmbox audit --without seccomp     what the other layers stop
    kvmbox audit --matrix              a table of probes and layers

    \b
    Exit status:
      0    no attack escaped, or --control has finished
      2    usage error
      4    the audit could not start
      12   an attack escaped, or its result is unclear
      14   the report could not be written
      130  interrupted
    """
    from kvmbox.remote.process.device_pool import SECCOMP_MODES
    from kvmbox.tools.audit.audit_report import as_data
    from kvmbox.tools.audit.run_audit import Options, run_audit

    if control:
        _refuse_beside_control(others=bool(matrix or without))
    device_types, threads = _chosen_types(types)
    _check_probes(probes)
    options = Options(
        types=device_types,
        threads=threads,
        seccomp=SECCOMP_MODES[seccomp],
        ipc=transport(ipc),
        without=_left_out(without, seccomp),
        control=control,
        matrix=matrix,
        probes=probes,
    )
    allow_enough()
    json_file = open_output(json_path)
    report = run_audit(options, _heed_signals)
    # As in bench: neither a full disk nor a terminal that is gone may lose the other's part.
    try:
        write_output(json_path, json_file, json.dumps(as_data(report), indent=2) + "\n")
    finally:
        with for_people(json_path):
            _print(report)
    return report.status


def _refuse_beside_control(*, others: bool) -> None:
    if others:
        raise UsageError("--control leaves out every layer: it goes with neither --without nor --matrix")
    if given("seccomp"):
        raise UsageError("--control leaves out every layer: --seccomp means nothing beside it")


def _left_out(without: tuple[str, ...], seccomp: Seccomp) -> int:
    """The layers that are not used, as a mask. Raises UsageError."""
    from kvmbox.jail import layers

    try:
        mask = layers.mask_of(without)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if mask & layers.SECCOMP and seccomp != "off" and given("seccomp"):
        raise UsageError(f"--without seccomp contradicts --seccomp {seccomp}")
    return mask | (layers.SECCOMP if seccomp == "off" else 0)


def _heed_signals(_progress: str) -> None:
    """A signal that came while Python ran a destructor: its KeyboardInterrupt was dropped, not the note."""
    if early_signals.received:
        raise KeyboardInterrupt


def _check_probes(wanted: tuple[str, ...]) -> None:
    from kvmbox.tools.audit.probe_catalogue import CATALOGUE

    for name in sorted(set(wanted) - {probe.name for probe in CATALOGUE}):
        raise UsageError(f"there is no probe '{name}'", hint="'kvmbox audit' lists them")


def _chosen_types(wanted: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The device types to audit, and the threads."""
    from kvmbox.cli.policy import device_types
    from kvmbox.tools.audit.substitute_process import THREADS

    known = [*device_types(), *THREADS]
    for name in wanted:
        if name not in known:
            raise UsageError(f"there is no device type '{name}'", hint=f"known: {', '.join(known)}")
    chosen = [name for name in known if name in wanted] if wanted else known
    return [name for name in chosen if name not in THREADS], [name for name in chosen if name in THREADS]


def _print(report: Report) -> None:
    from kvmbox.tools.audit.audit_report import findings_table, matrix_legend, matrix_table, removals, summary

    print_table(*findings_table(report), _STYLES)
    if report.options.matrix:
        click.echo("\nX: the layer alone stops the probe; .: it does not")
        print_table(*matrix_table(report), _STYLES)
        for line in [*matrix_legend(report), "", *removals(report)]:
            click.echo(line)
    click.echo(f"\n{summary(report)}")


_STYLES = {"contained": "green", "effective": "green", "ESCAPED": "bold red", "UNCLEAR": "bold red"} | {
    "not contained": "yellow",
    "not possible here": "yellow",
    "not applicable": "dim",
}
