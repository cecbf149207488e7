"""A strict reader of TAP 14 as producers must write it (testanything.org/tap-version-14-specification.html).

Whatever the specification lets a harness ignore is refused here, and so is YAML that is not of the form that
`kvmbox smoke` promises: keys, and JSON values, which are YAML 1.2.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any


class NotTap(AssertionError):
    """A line that TAP 14 does not allow there."""


@dataclass
class Point:
    """A test point."""

    ok: bool
    number: int
    description: str
    directive: str = ""
    reason: str = ""
    diagnostics: dict[str, Any] = field(default_factory=dict)


@dataclass
class Document:
    """All of a stream."""

    planned: int
    skipped: str = ""
    points: list[Point] = field(default_factory=list)
    bail_out: str | None = None

    @property
    def complete(self) -> bool:
        return self.bail_out is not None or len(self.points) == self.planned


_POINT = re.compile(r"(not ok|ok) (\d+) - (.*)")
_PLAN = re.compile(r"1\.\.(\d+)(?: # (.+))?")


def read_tap(text: str) -> Document:
    """The document. NotTap."""
    if not text.endswith("\n") or "\r" in text:
        raise NotTap("lines end with \\n")
    lines = text[:-1].split("\n")
    for line in lines:
        if not line.isprintable():
            raise NotTap(f"not printable: {line!r}")
    if lines[0] != "TAP version 14":
        raise NotTap(f"the version is missing: {lines[0]!r}")
    plan = _PLAN.fullmatch(lines[1])
    if plan is None:
        raise NotTap(f"no plan: {lines[1]!r}")
    document = Document(int(plan[1]), plan[2] or "")
    if (document.planned == 0) != document.skipped.startswith("SKIP"):
        raise NotTap(f"an empty plan is a skipped one, and no other is: {lines[1]!r}")
    at = 2
    while at < len(lines):
        line = lines[at]
        at += 1
        if document.bail_out is not None:
            raise NotTap(f"behind Bail out!: {line!r}")
        if line.startswith("Bail out!"):
            document.bail_out = line.removeprefix("Bail out!").strip()
            continue
        found = _POINT.fullmatch(line)
        if found is None:
            raise NotTap(f"neither a test point nor a bail-out: {line!r}")
        point = _point(found[1] == "ok", int(found[2]), found[3])
        if point.number != len(document.points) + 1:
            raise NotTap(f"point {point.number} comes as number {len(document.points) + 1}")
        if at < len(lines) and lines[at] == "  ---":
            end = lines.index("  ...", at)
            point.diagnostics = _yaml(lines[at + 1 : end])
            at = end + 1
        document.points.append(point)
    if len(document.points) > document.planned:
        raise NotTap("more points than planned")
    return document


def _point(ok: bool, number: int, rest: str) -> Point:
    """Split at the first # that is not escaped; unescape."""
    parts = re.split(r"(?<!\\)((?:\\\\)*) # ", rest, maxsplit=1)
    description = parts[0] + (parts[1] if len(parts) > 1 else "")
    directive = reason = ""
    if len(parts) > 1:
        directive, _, reason = parts[2].partition(" ")
        if directive not in ("SKIP", "TODO"):
            raise NotTap(f"unknown directive: {rest!r}")
    if any(re.search(r"(?<!\\)(?:\\\\)*#", text) for text in (description, reason)):
        raise NotTap(f"a # that is not escaped: {rest!r}")
    return Point(ok, number, _unescaped(description), directive, _unescaped(reason))


def _unescaped(text: str) -> str:
    if re.search(r"(?<!\\)(?:\\\\)*\\(?![\\#])", text):
        raise NotTap(f"an escape that TAP does not have: {text!r}")
    return re.sub(r"\\([\\#])", r"\1", text)


def _yaml(lines: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    items: list[Any] | None = None
    for indented in lines:
        if not indented.startswith("  ") or indented.startswith(("  ---", "  ...")):
            raise NotTap(f"not indented by two: {indented!r}")
        line = indented[2:]
        if line.startswith("  - "):
            if items is None:
                raise NotTap(f"an item of no list: {line!r}")
            items.append(json.loads(line[4:]))
            continue
        pair = re.fullmatch(r"([a-z_]+):(?: (.+))?", line)
        if pair is None or pair[1] in found:
            raise NotTap(f"no key, or one twice: {line!r}")
        items = None if pair[2] else []
        found[pair[1]] = _scalar(pair[2]) if pair[2] else items
    return found


def _scalar(text: str) -> Any:
    return text if re.fullmatch(r"[a-z][a-z-]*", text) else json.loads(text)
