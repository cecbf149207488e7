"""docs/guests-that-boot.md: tables of what was measured, put into the blocks of the page.

A block begins with `<!-- generated: guests TABLE -->` and ends with `<!-- end -->`; TABLE is `guests`,
`others` or `kvm-unit-tests`. Everything else on the page is prose that people write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tests.foreign.guests import GUESTS, Guest
from tests.foreign.rows import ENTRY, GUEST, OTHER, Row
from tests.foreign.survey import KVMBOX_NAME, QEMU_NAME

COLUMNS: Final = (("pvm", QEMU_NAME), ("pvm", KVMBOX_NAME), ("svm", QEMU_NAME), ("svm", KVMBOX_NAME))
BEGIN: Final = "<!-- generated: guests "
_BLOCK: Final = re.compile(rf"({BEGIN}([a-z-]+) -->\n)((?:(?!<!-- ).)*)(<!-- end -->)", re.DOTALL)
_HEAD: Final = ("QEMU, pvm", "kvmbox, pvm", "QEMU, svm", "kvmbox, svm")


def filled(page: str, rows: Sequence[Row]) -> str:
    """`page` with its blocks filled. ValueError for a block that nobody knows, or a page without blocks."""
    tables = {"guests": guests_table, "others": others_table, "kvm-unit-tests": entries_table}

    def block(match: re.Match[str]) -> str:
        if match[2] not in tables:
            raise ValueError(f"there is no table '{match[2]}'")
        return f"{match[1]}{tables[match[2]](rows)}{match[4]}"

    after, count = _BLOCK.subn(block, page)
    if count != page.count(BEGIN) or not count:
        raise ValueError("the page has no block, or one without an end")
    return after


def guests_table(rows: Sequence[Row]) -> str:
    """How far each guest got. The data have its version."""
    measured = _by_place(rows, GUEST)
    lines = [_line("guest", "format", *_HEAD, "why not further"), _line(*["---"] * 7)]
    for guest in GUESTS:
        found = [measured.get((guest.name, *column)) for column in COLUMNS]
        lines.append(_line(guest.name, guest.form, *map(_reached, found), _why(guest, found)))
    return "".join(lines)


def others_table(rows: Sequence[Row]) -> str:
    """How far guests got that were measured by hand."""
    measured = _by_place(rows, OTHER)
    lines = [_line("guest", "QEMU", "kvmbox", "remark"), _line(*["---"] * 4)]
    for name in dict.fromkeys(name for name, _, _ in measured):
        here = measured.get((name, "pvm", KVMBOX_NAME))
        found = [measured.get((name, "tcg", QEMU_NAME)), measured.get((name, "svm", KVMBOX_NAME), here)]
        note = "; ".join(row.note for row in found if row and row.note)
        lines.append(_line(name, *map(_reached, found), note))
    return "".join(lines)


def entries_table(rows: Sequence[Row]) -> str:
    """The verdicts on the entries of kvm-unit-tests, a line for each set of verdicts, and how many passed.

    Entries that passed, or skipped themselves, wherever they were measured are behind the table. The data
    have what an entry said.
    """
    measured = _by_place(rows, ENTRY)
    names = list(dict.fromkeys(name for name, _, _ in measured))
    alike: dict[str, list[str]] = {"pass": [], "skip": []}
    others: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        found = [measured.get((name, *column)) for column in COLUMNS]
        verdicts = {row.result for row in found if row} - {"left out"}
        if not verdicts:
            continue
        if len(verdicts) == 1 and not verdicts.isdisjoint(alike):
            alike[verdicts.pop()].append(name)
        else:
            others.setdefault(tuple(map(_verdict, found)), []).append(name)
    lines = [_line("entries", *_HEAD), _line(*["---"] * 5)]
    lines += [_line(_listed(entries), *verdicts) for verdicts, entries in others.items()]
    lines.append(_line("**passed**", *(_total(measured, column) for column in COLUMNS)))
    for verdict, entries in alike.items():
        if entries:
            lines.append(f"\n{verdict.capitalize()} wherever it was measured: {_listed(entries)}\n")
    return "".join(lines)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _total(measured: Mapping[tuple[str, str, str], Row], column: tuple[str, str]) -> str:
    found = [row for (_, *place), row in measured.items() if tuple(place) == column]
    tried = [row for row in found if row.result != "left out"]
    return f"**{sum(row.reached for row in tried)} of {len(tried)}**" if tried else ""


def _by_place(rows: Iterable[Row], kind: str) -> dict[tuple[str, str, str], Row]:
    return {(row.name, row.backend, row.program): row for row in rows if row.kind == kind}


def _reached(row: Row | None) -> str:
    if row is None or row.result == "not tried":
        return ""
    return _verdict(row)


def _verdict(row: Row | None) -> str:
    """The result; in bold where it is all that can be had."""
    if row is None:
        return ""
    return f"**{row.result}**" if row.reached == row.of else row.result


def _why(guest: Guest, found: Sequence[Row | None]) -> str:
    """The table's own words for a limit that is known, else what kvmbox said where it got no further."""
    parts = []
    for row in found:
        if row is None or row.program != KVMBOX_NAME or row.reached == row.of:
            continue
        known = guest.limit(row.backend)
        expected = row.reached >= known.milestones and re.search(known.says, row.note)
        text = known.why if known.why and expected else _code(row.note)
        if text:
            parts.append(f"{row.backend}: {text}")
    return "; ".join(parts)


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`" if text else ""


def _line(*cells: str) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |\n"
