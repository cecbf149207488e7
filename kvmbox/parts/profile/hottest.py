"""The hottest functions of a profile, as a table."""

from __future__ import annotations

from typing import Any, Final

from kvmbox.base.value_classes import Value
from kvmbox.explain.demangled_names import printable
from kvmbox.parts.profile.named_stacks import Number, Profile

WIDEST_NAME: Final = 120


class Function(Value):
    """A function: `own` counts the samples in the function itself, `total` also those in what it called."""

    name: str
    own: Number
    total: Number


def functions(profile: Profile) -> list[Function]:
    """All functions, the one with the most samples of its own first."""
    own: dict[str, Number] = {}
    total: dict[str, Number] = {}
    for stacks in profile.threads.values():
        for stack, count in stacks.items():
            if not stack:
                continue
            own[stack[-1].name] = own.get(stack[-1].name, 0) + count
            for name in {frame.name for frame in stack}:  # once, however often it calls itself
                total[name] = total.get(name, 0) + count
    found = [Function(name, own.get(name, 0), count) for name, count in total.items()]
    return sorted(found, key=lambda one: (-one.own, -one.total, one.name))


def as_data(profile: Profile) -> dict[str, Any]:
    """All functions as data."""
    return {
        "unit": profile.unit,
        "total": profile.total,
        "functions": [{"name": one.name, "self": one.own, "total": one.total} for one in functions(profile)],
    }


def table(profile: Profile, most: int) -> str:
    """The first `most` functions, in lines of text."""
    whole = profile.total
    unit = "samples" if profile.unit == "none" else profile.unit
    threads = [name for name in profile.threads if name]
    lines = [f"{_number(whole)} {unit}" + (f" of {len(threads)} CPUs" if len(threads) > 1 else "")]
    found = functions(profile)
    if found:
        lines.append(f"{'self':>10} {'':>7} {'total':>10} {'':>7}  function")
    for one in found[:most]:
        name = printable(one.name)
        name = name if len(name) <= WIDEST_NAME else f"{name[: WIDEST_NAME - 1]}…"
        lines.append(
            f"{_number(one.own):>10} {_percent(one.own, whole):>7} "
            f"{_number(one.total):>10} {_percent(one.total, whole):>7}  {name}"
        )
    if len(found) > most:
        lines.append(f"and {len(found) - most} more functions")
    return "\n".join(lines)


def _number(value: Number) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _percent(part: Number, whole: Number) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""
