"""Writes what is generated from the table of options: the types of the parameters of `Machine`.

python tools/generate_options.py      # kvmbox can be imported
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from kvmbox.run.option import IMAGE, Option
from kvmbox.run.options import PARAMETERS

TYPES: Final = Path(__file__).resolve().parent.parent / "kvmbox/machine/_generated_options.py"

HEAD: Final = '''\
"""The parameters of `Machine`, for type checkers: tools/generate_options.py makes it of `run.options`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypedDict

from kvmbox.board import DeviceSpec
from kvmbox.host.capture import Capture
from kvmbox.host.serial import Backends
from kvmbox.host.transfers import Store
from kvmbox.machine.snapshots import SnapshotCondition
from kvmbox.run.choices import FirmwareFile, ModuleSpec, SymbolSpec
from kvmbox.snapshot.file import SnapshotFile

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


if __name__ == "__main__":
    TYPES.write_text(types(), encoding="utf-8")
