"""Writes what follows from the table of options: types of `Machine`, and a table of docs/command-line.md.

The page has the options with their defaults; --help says what they do.

python tools/generate_options.py      # kvmbox can be imported
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from kvmbox.run.options.definition import FLAG, IMAGE, REPEATED, Option
from kvmbox.run.options.option_table import PARAMETERS, SECTIONS

PROJECT: Final = Path(__file__).resolve().parent.parent
TYPES: Final = PROJECT / "kvmbox/run/options/_generated.py"
PAGE: Final = PROJECT / "docs/command-line.md"

HEADING: Final = "| about | options |"
SEE: Final = {
    "cpu": "[processors](processors.md)",
    "boot": "[booting](booting.md#accepted-images)",
    "firmware_tables": "[firmware tables](firmware-tables.md)",
    "disks": "[disks](disks.md)",
    "keyboard": "[i8042](devices/i8042.md#keys)",
    "screen": "[screen](screen.md)",
    "gdb": "[gdb](gdb.md)",
    "snapshot_when": "[snapshots](snapshots.md)",
    "on_device_crash": "[crash survival](crash-survival.md)",
    "inject": "[fault injection](fault-injection.md)",
    "symbols": "[debugging](debugging.md)",
    "source": "[source lines](debugging.md#source-lines)",
    "core": "[core files](debugging.md#core-files)",
    "no_exit_samples": "[exits](profiling.md#where-exits-come-from)",
    "profile": "[profiling](profiling.md)",
    "record": "[recordings](record-replay.md)",
}
"""The pages that say more."""

HEAD: Final = '''\
"""The parameters of `Machine`, for type checkers: tools/generate_options.py makes it of `option_table`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Literal, TypedDict

from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.host.console.captured_port import Capture
from kvmbox.host.console.serial_backends import Backends
from kvmbox.host.disk.stores import DiskRequest
from kvmbox.host.disk.transfers import Store
from kvmbox.run.options.choices import FirmwareFile, ModuleSpec, SavedMachine, SnapshotCondition, SymbolSpec
from kvmbox.run.options.values import Several

'''


def types() -> str:
    """The module."""
    free = [option for option in PARAMETERS.values() if not option.marks & IMAGE]
    decided = [option for option in PARAMETERS.values() if option.marks & IMAGE]
    return "\n".join(
        (
            HEAD,
            *_class("SnapshotOptions(TypedDict, total=False)", "What a snapshot leaves open.", free),
            "\n",
            *_class("MachineOptions(SnapshotOptions, total=False)", "All parameters.", decided),
            "",
        )
    )


def _class(head: str, text: str, options: Iterable[Option]) -> list[str]:
    return [
        f"class {head}:",
        f'    """{text}"""',
        "",
        *(f"    {option.name}: {option.annotation}" for option in options),
    ]


def page(text: str) -> str:
    """The page of the command line with the table of options as it should be."""
    found, count = re.subn(re.escape(f"{HEADING}\n") + r"(?:\|.*\n)*", lambda _: f"{table()}\n", text)
    assert count == 1, f"{PAGE} has {count} tables of options"
    return found


def table() -> str:
    """The table of options."""
    rows = (f"| {section.title} | {', '.join(map(_cell, section.options))} |" for section in SECTIONS)
    return "\n".join((HEADING, "|---|---|", *rows))


def _cell(option: Option) -> str:
    value = "" if option.kind == FLAG else f" {option.metavar or '|'.join(option.choices)}"
    _, _, default = option.full_help.partition("  [default: ")
    more = "…" if option.kind == REPEATED else ""
    given = f" ({default.removesuffix(']')})" if default else ""
    see = f" {SEE[option.name]}" if option.name in SEE else ""
    return f"`{option.spelling}{value}{more}`{given}{see}".replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    TYPES.write_text(types(), encoding="utf-8")
