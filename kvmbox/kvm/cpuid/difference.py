"""In what two processors differ, for a person: the most telling difference alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvmbox.kvm.cpuid.features import shown_in
from kvmbox.kvm.cpuid.leaves import Leaf, find, vendor

MOST_NAMES: Final = 6


def difference(there: Sequence[Leaf], here: Sequence[Leaf]) -> str | None:
    """What the processor `here` has, or lacks, that the one `there` does not; None if they are the same."""
    if list(there) == list(here):
        return None
    if vendor(there) != vendor(here):
        return f"its vendor is {_text(vendor(here))}, and not {_text(vendor(there))}"
    wanted, found = shown_in(there), shown_in(here)
    lacks = [name for name in wanted if name not in set(found)]
    further = [name for name in found if name not in set(wanted)]
    parts = [f"{verb} {_list(names)}" for verb, names in (("lacks", lacks), ("has also", further)) if names]
    if parts:
        return f"it {' and '.join(parts)}"
    for one in there:
        other = find(here, one.function, one.index)
        if other != one:
            what = "its model is another one" if one.function == 1 else "it shows something else"
            return f"{what}: CPUID leaf {one.function:#x}.{one.index}"
    return "it has further leaves of CPUID"


def _text(name: bytes) -> str:
    return name.decode("latin-1").strip("\0 ") or "unknown"


def _list(names: Sequence[str]) -> str:
    left = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {left} more" if left > 0 else "")
