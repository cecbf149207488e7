"""The stand-in for typing.NamedTuple behaves like it, and the spawner loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kvmbox
from kvmbox.lean import NamedTuple


class Point(NamedTuple):
    """A tuple with a method."""

    x: int
    y: int

    def swapped(self) -> tuple[int, int]:
        return self.y, self.x


def test_lean_named_tuple_is_a_tuple_with_names() -> None:
    point = Point(1, 2)  # type: ignore[call-arg]

    assert point == (1, 2)  # type: ignore[comparison-overlap]
    assert (point.x, point.y) == (1, 2)
    assert point.swapped() == (2, 1)
    assert repr(point) == "Point(x=1, y=2)"
    assert Point.__doc__ == "A tuple with a method."
    assert not hasattr(point, "__dict__")


def test_spawner_and_models_load_neither_typing_nor_dataclasses() -> None:
    code = (
        f"import sys; sys.path.append({str(Path(kvmbox.__file__).parent.parent)!r}); "
        "import kvmbox.remote.spawner, kvmbox.remote.server; "
        "print(*sorted({'typing', 'dataclasses', 'inspect', 're', 'enum', 'socket'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
