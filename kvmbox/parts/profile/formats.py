"""The two formats of a profile's file.

Collapsed stacks have one line for each stack: the functions, outermost first and separated by semicolons, a
space, and a number. flamegraph.pl, inferno and speedscope read these lines.

The other format is that of speedscope (https://www.speedscope.app/file-format-schema.json): an object of JSON
with a table of functions, and profiles of the type "sampled" whose stacks are indices into the table.
"""

from __future__ import annotations

import functools
import json
import math
from contextlib import suppress
from typing import Any, Final

from kvmbox.base.errors import StartError
from kvmbox.explain.demangled_names import printable
from kvmbox.parts.profile.named_stacks import Frame, Number, Profile, Stack

MOST_BYTES: Final = 32 << 20
"""The size of a file that is read."""

SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"
UNITS: Final = ("none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes")


def is_speedscope(path: str) -> bool:
    """Whether a file of this name gets speedscope's format: names that end in .json do."""
    return path.endswith(".json")


def collapsed(profile: Profile) -> str:
    """The lines of `profile`. With several CPUs, the outermost function is the name of the CPU."""
    several = len(profile.threads) > 1
    lines = []
    for thread, stacks in profile.threads.items():
        for stack, count in stacks.items():
            names = [*([thread] if several else []), *(frame.name for frame in stack)]
            lines.append(f"{';'.join(_escaped(name) for name in names)} {count}\n")
    return "".join(lines)


def _escaped(name: str) -> str:
    return printable(name).replace(";", "\\x3b")


def speedscope(profile: Profile, name: str, exporter: str) -> str:
    """The file of `profile` for speedscope; each CPU is a profile of its own."""
    numbers: dict[Frame, int] = {}
    profiles = []
    for thread, stacks in profile.threads.items():
        rows = [[numbers.setdefault(frame, len(numbers)) for frame in stack] for stack in stacks]
        profiles.append(
            {
                "type": "sampled",
                "name": thread,
                "unit": profile.unit,
                "startValue": 0,
                "endValue": sum(stacks.values()),
                "samples": rows,
                "weights": list(stacks.values()),
            }
        )
    frames = [{"name": frame.name} | ({"file": frame.file} if frame.file else {}) for frame in numbers]
    found = {
        "$schema": SCHEMA,
        "name": name,
        "exporter": exporter,
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
        "profiles": profiles,
    }
    return json.dumps(found) + "\n"


def read(data: bytes, path: str) -> Profile:
    """The profile in a file of either format, by the content. Raises StartError, which names `path`."""
    try:
        if data.lstrip()[:1] != b"{":
            return _of_lines(data)
        try:
            content = _parsed(data)
        except _Bad:
            with suppress(_Bad):  # names of closures may begin with a brace, too
                return _of_lines(data)
            raise
        return _of_speedscope(content)
    except _Bad as error:
        raise StartError(
            f"cannot read the profile '{path}': {error}",
            hint="collapsed stacks, or speedscope's JSON: what 'kvmbox run --profile FILE' writes",
        ) from error


class _Bad(Exception):
    """What is wrong with a file."""


def _of_lines(data: bytes) -> Profile:
    stacks: dict[Stack, Number] = {}
    frame = functools.cache(Frame)
    for number, line in enumerate(data.decode(errors="replace").replace("\r\n", "\n").split("\n"), 1):
        if not line or line.startswith("#"):
            continue
        names, _, count = line.rpartition(" ")
        if not names or not count.isascii() or not count.isdigit() or len(count) > 18:
            raise _Bad(f"line {number} does not end in a space and a number")
        stack = tuple(map(frame, names.split(";")))
        stacks[stack] = stacks.get(stack, 0) + int(count)
    return Profile({"": stacks})


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # deep nesting raises the latter
        raise _Bad(f"it is not valid JSON: {error}") from error


def _of_speedscope(content: Any) -> Profile:
    shared = content.get("shared")
    table = shared.get("frames") if isinstance(shared, dict) else None
    profiles = content.get("profiles")
    if not isinstance(table, list) or not isinstance(profiles, list):
        raise _Bad("the JSON has no shared.frames and profiles")
    frames = [_frame(one, number) for number, one in enumerate(table)]
    threads: dict[str, dict[Stack, Number]] = {}
    units = set()
    for number, one in enumerate(profiles):
        where = f"profile {number}"
        if not isinstance(one, dict) or one.get("type") != "sampled":
            raise _Bad(f"{where} is not of the type 'sampled'")
        unit = one.get("unit")
        if unit not in UNITS:
            raise _Bad(f"{where} has an unknown unit")
        units.add(unit)
        samples, weights = one.get("samples"), one.get("weights")
        if not isinstance(samples, list) or not isinstance(weights, list) or len(samples) != len(weights):
            raise _Bad(f"{where} does not have as many samples as weights")
        stacks = threads.setdefault(str(one.get("name", "")), {})
        for sample, weight in zip(samples, weights, strict=True):
            stack = _stack(sample, frames, where)
            stacks[stack] = stacks.get(stack, 0) + _weight(weight, where)
    if len(units) > 1:
        raise _Bad("its profiles have different units")
    return Profile(threads, units.pop() if units else "none")


def _frame(one: Any, number: int) -> Frame:
    if not isinstance(one, dict) or not isinstance(one.get("name"), str):
        raise _Bad(f"frame {number} has no name")
    file = one.get("file", "")
    return Frame(one["name"], file if isinstance(file, str) else "")


def _stack(sample: Any, frames: list[Frame], where: str) -> Stack:
    if not isinstance(sample, list):
        raise _Bad(f"{where} has a sample that is not a list")
    for index in sample:
        if type(index) is not int or not 0 <= index < len(frames):
            raise _Bad(f"{where} has a sample with a frame that does not exist")
    return tuple(frames[index] for index in sample)


def _weight(weight: Any, where: str) -> Number:
    if type(weight) not in (int, float) or not 0 <= weight < 1e18 or math.isnan(weight):
        raise _Bad(f"{where} has a weight that is not a number")
    found: Number = weight
    return found
