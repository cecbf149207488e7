"""Boots and observations as plain data, for executors on other machines. Pure.

Both are dicts of what JSON has. Bytes travel as text in Latin-1. What comes from another machine is checked:
`ValueError` says what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from kvmbox.run.result.run_result import ENDING, Kinds
from kvmbox.run.result.validation import checked
from kvmbox.tools.smoke.suite.command_line import with_paths
from kvmbox.tools.smoke.suite.test_case import Boot, Observation, Pattern, Step

_KEY: Final = re.compile(r"[0-9a-f]{64}/(?!\.{1,2}\Z)[^/\0]+\Z")
_TUPLES: Final = ("modules", "fw_cfg", "disks", "cdroms", "nets", "require", "inject")
_BYTES: Final = "latin-1"


def is_key(text: str) -> bool:
    """Whether `text` names a file by its content: the SHA-256 in hex, a slash, and the name of the file.

    A guest is told the names of its image and its modules, so that they belong to the content.
    """
    return _KEY.match(text) is not None


def with_files(boot: Boot, place: Callable[[str], str]) -> Boot:
    """The same boot with another path for each file that it reads: what `place` makes of the path."""
    return boot.replaced(image=place(boot.image), options=with_paths(boot.options, place))


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
    own = {name: getattr(seen, name) for name in _OWN}
    return seen.encoded() | own | {"output": seen.output.decode(_BYTES)}


_OWN: Final[Kinds] = {
    "seconds": (int, float),
    "output": (str,),
    "messages": (str,),
    "stopped": (bool,),
    "steps_done": (int,),
    "start_failed": (bool,),
    "screen": (dict, type(None)),
}
"""The fields of an observation, beside those of every ending."""

_BOUNDS: Final = {"status": (-64, 255), "seconds": (0, 1e7), "steps_done": (0, 1 << 20)}
"""The least and the most that a number can be. A status below 0 is a signal."""


def observation_from(data: object) -> Observation:
    """The observation in what another machine has sent. Raises ValueError."""
    found = checked(data, {**ENDING, **_OWN}, _BOUNDS)
    own = {name: found[name] for name in _OWN} | {"output": found["output"].encode(_BYTES)}
    return Observation.decoded(found, **own)


def _pattern_data(pattern: Pattern) -> list[Any]:
    return [pattern.text, pattern.is_regex]
