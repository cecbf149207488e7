"""Boots and observations as plain data, for executors on other machines. Pure.

Both are dicts of what JSON has. Bytes travel as text in Latin-1. What comes from another machine is checked:
`ValueError` says what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from kvmbox.tools.smoke.model import Boot, Observation, Pattern, Step

_KEY: Final = re.compile(r"[0-9a-f]{64}/(?!\.{1,2}\Z)[^/\0]+\Z")
_TUPLES: Final = ("modules", "fw_cfg", "disks", "cdroms", "require", "inject")
_BYTES: Final = "latin-1"


def is_key(text: str) -> bool:
    """Whether `text` names a file by its content: the SHA-256 in hex, a slash, and the name of the file.

    A guest is told the names of its image and its modules, so that they belong to the content.
    """
    return _KEY.match(text) is not None


def with_files(boot: Boot, place: Callable[[str], str]) -> Boot:
    """The same boot with another path for each file that it reads: what `place` makes of the path."""
    options = dict(boot.options)
    if "initrd" in options:
        options["initrd"] = place(str(options["initrd"]))
    if options.get("bios", "none") not in ("builtin", "none"):
        options["bios"] = place(str(options["bios"]))
    for name in {"modules", "disks"} & options.keys():
        options[name] = tuple(_moved(one, place) for one in _texts(options[name]))
    if "cdroms" in options:
        options["cdroms"] = tuple(place(one) for one in _texts(options["cdroms"]))
    if "fw_cfg" in options:
        named = (one.partition("=") for one in _texts(options["fw_cfg"]))
        options["fw_cfg"] = tuple(f"{name}={place(path)}" for name, _, path in named)
    return replace(boot, image=place(boot.image), options=options)


def boot_data(boot: Boot) -> dict[str, Any]:
    """A boot as plain data; without recording and core file, which would be files of another machine."""
    options = {name: list(one) if isinstance(one, tuple) else one for name, one in boot.options.items()}
    return {
        "image": boot.image,
        "options": options,
        "timeout": boot.timeout,
        "dialogue": [
            [_pattern_data(step.when) if step.when else None, step.send.decode(_BYTES), step.on_keyboard]
            for step in boot.dialogue
        ],
        "stop_all": [_pattern_data(one) for one in boot.stop_all],
        "stop_any": [_pattern_data(one) for one in boot.stop_any],
    }


def boot_from(data: Mapping[str, Any]) -> Boot:
    """The boot that `boot_data` has made data of: a worker believes whoever sends it work."""
    options = {name: tuple(one) if name in _TUPLES else one for name, one in data["options"].items()}
    return Boot(
        image=data["image"],
        options=options,
        timeout=data["timeout"],
        dialogue=tuple(
            Step(None if when is None else Pattern(*when), send.encode(_BYTES), on_keyboard)
            for when, send, on_keyboard in data["dialogue"]
        ),
        stop_all=tuple(Pattern(*one) for one in data["stop_all"]),
        stop_any=tuple(Pattern(*one) for one in data["stop_any"]),
    )


def observation_data(seen: Observation) -> dict[str, Any]:
    """An observation as plain data."""
    found = {one.name: getattr(seen, one.name) for one in fields(Observation)}
    return found | {"output": seen.output.decode(_BYTES)}


_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "status": (int,),
    "reason": (str,),
    "seconds": (int, float),
    "hint": (str, type(None)),
    "crash_report": (str,),
    "output": (str,),
    "messages": (str,),
    "stopped": (bool,),
    "steps_done": (int,),
    "start_failed": (bool,),
}


_BOUNDS: Final = {"status": (-64, 255), "seconds": (0, 1e7), "steps_done": (0, 1 << 20)}
"""The least and the most that a number can be. A status below 0 is a signal."""

MOST_CHARACTERS: Final = 64 << 20
"""The length of a text: what a run keeps of a console is the longest."""


def observation_from(data: object) -> Observation:
    """The observation in what another machine has sent. Raises ValueError."""
    if not isinstance(data, dict) or set(data) != set(_KINDS):
        raise ValueError("it has other keys than an observation")
    for name, kinds in _KINDS.items():
        value = data[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"its {name} is a {type(value).__name__}")
        if isinstance(value, str) and len(value) > MOST_CHARACTERS:
            raise ValueError(f"its {name} has {len(value)} characters")
    for name, (least, most) in _BOUNDS.items():
        if not least <= data[name] <= most:  # nor a NaN
            raise ValueError(f"its {name} is out of bounds")
    return Observation(**{**data, "output": data["output"].encode(_BYTES)})


def _pattern_data(pattern: Pattern) -> list[Any]:
    return [pattern.text, pattern.is_regex]


def _texts(value: object) -> Iterator[str]:
    assert isinstance(value, tuple)
    yield from value


def _moved(module: str, place: Callable[[str], str]) -> str:
    path, comma, arguments = module.partition(",")
    return place(path) + comma + arguments
