"""kvmbox, with signals to itself at one stage: `signal_at.py STAGE COUNT ARGUMENTS…`.

STAGE is `module:name` or `module:Class.name` of a function; COUNT signals SIGINT are sent before it is called
for the first time, or behind its call with a `+` after the name.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Any

from kvmbox.cli.entry import entry_point


def strike_at(stage: str, count: int) -> None:
    """Wrap the function that `stage` names."""
    behind = stage.endswith("+")
    module, _, path = stage.removesuffix("+").partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    function = getattr(owner, name)
    left = [count]

    def strike() -> None:
        while left[0]:
            left[0] -= 1
            signal.raise_signal(signal.SIGINT)  # kvmbox may not kill: tgkill to itself

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if not behind:
            strike()
        result = function(*arguments, **options)
        if behind:
            strike()
        return result

    setattr(owner, name, wrapped)


if __name__ == "__main__":
    stage, count, *sys.argv[1:] = sys.argv[1:]
    strike_at(stage, int(count))
    entry_point()
