"""The check of a result that comes from another process, which a guest may have taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kvmbox.run.result.run_result import Kinds

MOST_CHARACTERS: Final = 64 << 20
"""The length of a text: what a run keeps of a console is the longest."""


def checked(data: object, kinds: Kinds, bounds: Mapping[str, tuple[int, float]]) -> dict[str, Any]:
    """`data` of another process, which a guest may have taken over, if it has just these fields.

    `bounds` are the least and the most that a number can be. ValueError says what is wrong.
    """
    if not isinstance(data, dict) or data.keys() != kinds.keys():
        raise ValueError("it has other fields")
    for name, value in data.items():
        if type(value) not in kinds[name]:
            raise ValueError(f"its {name} is a {type(value).__name__}")
        if isinstance(value, str) and len(value) > MOST_CHARACTERS:
            raise ValueError(f"its {name} has {len(value)} characters")
    for name, (least, most) in bounds.items():
        if not least <= data[name] <= most:  # nor a NaN
            raise ValueError(f"its {name} is out of bounds")
    return data
