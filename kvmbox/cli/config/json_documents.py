"""What the `--json` of each command writes, as shapes: `kvmbox config --schema` makes schemas of them.

A shape is a type, a dictionary of what an object has, [shape] for a list, {TEXT: shape} for an object with
any names, or a tuple of what there may be. An object may have more than its shape says: fields may be added.
"""

from __future__ import annotations

from typing import Any, Final

Shape = Any
"""See the module."""

TEXT: Final = object()
"""Stands for any name."""

_MAYBE: Final = (str, None)
_COUNTS: Final = {TEXT: int}
_SPAN: Final = {"count": int, "bytes": int, "first": int, "last": int}

# The formatter would give each field a line of its own.
# fmt: off
_TEST: Final = {
    "test": str, "suite": str, "name": str, "verdict": str, "reason": str, "at": str,
    "boots": int, "passed": int, "seconds": float, "files": [str],
}

DOCUMENTS: Final[dict[str, dict[str, Shape]]] = {
    "run": {"status": int, "reason": str},
    "smoke": {
        "status": int, "counts": _COUNTS, "boots": int, "seconds": float, "stopped": _MAYBE, "tests": [_TEST],
    },
    "inspect": {
        "path": str, "size": int, "compression": str, "decompressed_size": int,
        "taken": _MAYBE, "reason": str, "hint": str, "disk": (dict, None),
        "ways": [{"name": str, "kind": str, "possible": bool}],
    },
    "profile": {"unit": str, "total": float, "functions": [{"name": str, "self": float, "total": float}]},
    "guests": {"guests": [{"name": str, "path": str, "proves": str, "options": [str]}]},
    "doctor": {"works": bool, "findings": [{"name": str, "state": str, "detail": str, "remedy": _MAYBE}]},
    "policy": {"processes": [{"process": str, "about": str, "seccomp": str, "rules": [dict]}]},
    "audit": {"host": dict, "options": dict, "layers": [str], "status": int, "counts": _COUNTS},
    "bench": {"schema": str, "rows": [dict], "configurations": [dict]},
    "replay": {"compared": int, "requests": int, "guest_time": int, "difference": _MAYBE},
    "trace": {
        "records": _SPAN, "unanswered": int,
        "accesses": [{"device": str, "offset": int, "access": str, **_SPAN}],
        "requests": [{"device": _MAYBE, "type": str, "request": str, **_SPAN}],
        "output": [{"device": str, **_SPAN}],
        "interrupts": [{"device": str, "pin": int, "raised": _SPAN, "lowered": int, "coalesced": int}],
    },
    "configured": {"path": _MAYBE, "passed_over": [str], "commands": {TEXT: dict}},
}
"""By command; `configured` is that of `kvmbox config`. `schema`, the version, is in each of them."""

RAN: Final[dict[str, Shape]] = {
    "hint": _MAYBE, "report": str, "summary": str, "cpus": [dict], "last_lines": {TEXT: str},
    "core": _MAYBE, "disks": list, "nets": list, "screen": (dict, None), "wall_time": int, "format": str,
    "boots": int, "exits": int, "exits_by_cpu": [int],
    "device_accesses": {TEXT: {"reads": int, "writes": int}},
    "ports": [{"port": int, "direction": str, "size": int, "count": int}],
    "unclaimed": _COUNTS, "mmio_exits": int,
    "interrupts": [{"line": int, "raised": int, "coalesced": int}],
    "bytes_out": _COUNTS, "bytes_in": _COUNTS, "bytes_dropped": _COUNTS, "guest_time": int,
    "stages": _COUNTS, "design": str, "hot_path": str, "sandbox": {TEXT: [str]},
}
"""What `kvmbox run --json` has beside that, where the machine has started."""
# fmt: on
