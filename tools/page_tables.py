"""Tables of pages that follow from tables in the code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvmbox.cli.qemu_hints import ROWS
from kvmbox.firmware.video_modes import MODES
from kvmbox.parts.inject.fault_table import ANY, FAULTS, MODELS, WITH_INTERRUPT
from kvmbox.wire import bulk_effect_table, effect_kinds, pci_effect_table
from kvmbox.wire import effects as single_effects
from tools.blocks import line

HEADING: Final = ("tag", "name", "granted by", "pin", "level", "argument", "behind it")


def _row(kind: effect_kinds.EffectKind) -> tuple[str, ...]:
    """The cells of `kind`."""
    meanings: dict[str, list[str]] = {}
    for place, meaning in kind.fields:
        meanings.setdefault(place, []).append(meaning)
    tail = [
        f"{what}: {meaning}"
        for place, what in ((effect_kinds.RANGES, "ranges"), (effect_kinds.DATA, "bytes"))
        for meaning in meanings.get(place, [])
    ]
    return (
        str(kind.tag),
        kind.name,
        _either([f"`{grant}`" for grant in kind.grants]) + (", after a write" if kind.after_write else ""),
        *meanings.get(effect_kinds.PIN, ["number of ranges" if kind.has_ranges else "0"]),
        *meanings.get(effect_kinds.LEVEL, ["0"]),
        *meanings.get(effect_kinds.ARGUMENT, ["number of bytes" if kind.has_data else "0"]),
        " + ".join([*meanings.get(effect_kinds.WORD_BEHIND, []), *tail]),
    )


def _either(names: list[str]) -> str:
    return " or ".join([part for part in (", ".join(names[:-1]), names[-1]) if part])


def effects() -> list[str]:
    """The lines of the table."""
    kinds = (*single_effects.TABLE, *bulk_effect_table.TABLE, *pci_effect_table.TABLE)
    return _table(HEADING, [_row(kind) for kind in kinds])


def faults() -> list[str]:
    """The faults that can be injected."""
    whose = MODELS | {ANY: "all", WITH_INTERRUPT: "with an interrupt"}
    rows = [
        (f"`{one.name}={one.takes}`", whose[one.of], one.text, f"`{one.example}`") for one in FAULTS.values()
    ]
    return _table(("fault", "devices", "what happens", "example"), rows)


def qemu() -> list[str]:
    """Options of QEMU, and what they are here."""
    rows = [(", ".join(f"`-{name}`" for name in names.split()), hint) for names, hint in ROWS.items()]
    return _table(("QEMU", "kvmbox run"), rows)


def modes() -> list[str]:
    """The numbers of VBE's modes, by size and depth."""
    numbers = {(mode.width, mode.height, mode.depth): f"{number:X}" for number, mode in MODES.items()}
    depths = sorted({depth for _, _, depth in numbers})
    rows = [
        (f"{width}×{height}", *(numbers.get((width, height, depth), "") for depth in depths))
        for width, height in sorted({one[:2] for one in numbers})
    ]
    return _table(("size", *(f"{depth} bits" for depth in depths)), rows)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [line(*heading), line(*["---"] * len(heading)), *(line(*row) for row in rows)]
