"""Stand-ins for what the modules of a device process would import `typing` for.

`typing` and `dataclasses` pull in re, inspect, ast and more: 16 ms of CPU time in a process that is started
anew for each run, and pages that every device process would share for nothing. Modules that the spawner
loads therefore guard `typing` with a local `TYPE_CHECKING = False`, which type checkers take for true, and
take from here what they need while running.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _NamedTupleType(type):
    """Makes of a class body with annotations what `typing.NamedTuple` makes of it, without defaults."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        if not bases:
            return super().__new__(cls, name, bases, namespace)
        fields = tuple(namespace.pop("__annotations__"))
        # The class itself as base, so that methods of the body can be added; no dictionary per instance.
        base = namedtuple(name, fields)  # type: ignore[misc]
        return type(name, (base,), {**namespace, "__slots__": ()})


class NamedTuple(metaclass=_NamedTupleType):
    """Base of a class whose annotations are the fields of a tuple."""
