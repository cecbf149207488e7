"""How much a call takes, in bytes and in lines of Python: measures that no clock blurs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any


def footprint(thing: object) -> int:
    """Bytes of `thing` and all that it holds, as Python counts them: what a guest's input could make grow.

    Modules, classes and functions are not counted: they are code, and shared.
    """
    seen: set[int] = set()
    waiting: list[object] = [thing]
    total = 0
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type | FunctionType | MethodType | ModuleType):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
        waiting += vars(one).values() if hasattr(one, "__dict__") else ()
        for kind in type(one).__mro__:
            slots = vars(kind).get("__slots__", ())
            names = (slots,) if isinstance(slots, str) else slots
            waiting += [getattr(one, name) for name in names if hasattr(one, name)]
    return total


def lines_executed(action: Callable[[], object]) -> int:
    """How many lines of Python `action` takes: a measure of work that no clock blurs."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count
