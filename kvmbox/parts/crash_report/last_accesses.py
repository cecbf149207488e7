"""The last accesses to devices that a run loop remembers, in words and as data, for the report of a crash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kvmbox.run.vcpu.run_state import Access

Made = tuple[Access, int | None]
"""An access, and the value that was read or written; None for a string instruction."""


LONGEST_PATTERN: Final = 4
"""The most accesses that are one line if they come again and again."""


def lines_of(made: Sequence[Made]) -> list[str]:
    """The accesses, the newest last.

    Equal ones in a row are one line. So is a pattern that comes again, as in
    `in 0x3fd -> 0x60, out 0x3f8: 9 times`. Characters that are written to one place are one text.
    """
    found = ["Last accesses to devices, the newest last:"] if made else []
    at = 0
    while at < len(made):
        length, count = _pattern(made, at)
        if length == 1:
            (direction, address, size), _ = made[at]
            found.append(f"  {direction:<5} {address:#06x} size {size}  {_values(made[at : at + count])}")
        else:
            steps = [made[at + step : at + length * count : length] for step in range(length)]
            found.append(f"  {', '.join(map(_step, steps))}: {count} times")
        at += length * count
    return found


def _pattern(made: Sequence[Made], at: int) -> tuple[int, int]:
    """The length of the shortest pattern that begins at `at` and comes again, and how often it comes.

    Equal accesses are a pattern of length 1. A longer pattern has the same places, and what it reads is the
    same: then the guest does not get on.
    """
    equal = next((n for n, one in enumerate(made[at:]) if one != made[at]), len(made) - at)
    if equal > 1:
        return 1, equal
    text = 0
    while at + text < len(made) and _is_text(made[at + text]) and made[at + text][0] == made[at][0]:
        text += 1
    if text > 1:
        return 1, text
    for length in range(2, LONGEST_PATTERN + 1):
        first, count = [_key(one) for one in made[at : at + length]], 1
        while [_key(one) for one in made[at + count * length : at + (count + 1) * length]] == first:
            count += 1
        if count > 2 and first.count(first[0]) < length:
            return length, count
    return 1, 1


def _key(one: Made) -> object:
    """What accesses have in common that are steps of one pattern."""
    access, value = one
    return access, value if access[0] in _READS else None


def _is_text(one: Made) -> bool:
    """Whether the access writes a character."""
    (direction, _, size), value = one
    return direction in ("out", "write") and size == 1 and value is not None and chr(value) in _CHARACTERS


_READS: Final = ("in", "read")
_CHARACTERS: Final = frozenset(map(chr, (*range(0x20, 0x7F), 0x0A, 0x0D, 0x09)))


def _values(equal: Sequence[Made]) -> str:
    """The value of accesses to one place and how often it came, or the text that they write."""
    (_, _, size), value = equal[0]
    if any(one != equal[0] for one in equal):
        return repr("".join(chr(value) for _, value in equal if value is not None))
    what = "a string" if value is None else f"{value:#0{2 + 2 * size}x}"
    return what + (f", {len(equal)} times" if len(equal) > 1 else "")


def _step(made: Sequence[Made]) -> str:
    """A step of a pattern, with its value where that is always the same."""
    (direction, address, _), value = made[0]
    alike = value is not None and all(one == made[0] for one in made)
    arrow = "->" if direction in _READS else "<-"
    return f"{direction} {address:#x}" + (f" {arrow} {value:#x}" if alike else "")


def as_json(made: Sequence[Made]) -> list[dict[str, Any]]:
    """The accesses as data, the newest last; addresses are hexadecimal strings as in the rest of a report."""
    return [
        {"access": direction, "address": hex(address), "size": size, "value": value}
        for (direction, address, size), value in made
    ]
