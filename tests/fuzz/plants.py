"""Bugs planted on purpose, one at a time: a fuzzer that does not find them would not find others either."""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from kvmbox.channel.channel import Channel
from kvmbox.channel.grants import Grants
from kvmbox.channel.journal import Journal
from kvmbox.channel.recovery import Recovery
from kvmbox.devices import uart_snapshot
from kvmbox.machine.coalescing import CoalescedRing


class Plant(NamedTuple):
    """In function `name` of `owner`, a class or module, `good` becomes `bad`; `target` is where it shows."""

    target: str
    owner: Any
    name: str
    good: str
    bad: str


PLANTS: Final = {
    "value": Plant("stream", Channel, "_accept", "if value > limit:", "if False:"),
    "fast value": Plant("stream", Channel, "access", "and result <= limit", ""),
    "fast rest": Plant("shared", Channel, "access", "and not rest", ""),
    "sequence": Plant(
        "stream", Channel, "access", "reply == first | _REPLY_BIT", "reply & 0xFF == first & 0xFF | 128"
    ),
    "header": Plant("shared", Channel, "_accept", "if first != asked | _REPLY_BIT | count << 24 or", "if"),
    "length": Plant("stream", Channel, "_accept", "if rest >> 32 != size - HEADER.size:", "if False:"),
    "stray bytes": Plant(
        "stream", Channel, "_accept", "if payload and kind != protocol.SNAPSHOT:", "if False:"
    ),
    "effects of a hello": Plant(
        "stream", Channel, "_accept", "if count and kind in _NO_EFFECTS:", "if False:"
    ),
    "deadline": Plant("stream", Channel, "_accept", "deadline <= now:", "deadline < now:"),
    "foreign device": Plant("shared", Channel, "check_effect", "if index >= len(self._grants):", "if False:"),
    "foreign pin": Plant("stream", Grants, "check", "pin < len(self.irq_lines)", "True"),
    "foreign stop": Plant("stream", Grants, "check", "sent[0] != protocol.WRITE or", ""),
    "blame": Plant("stream", Channel, "_explain_header", "if first & 0xFF == protocol.ERROR:", "if False:"),
    "journal": Plant(
        "lives",
        Journal,
        "note",
        "self.append(entry)",
        "self[:] = [*self[:6], *self[7:], entry]",
    ),
    "checkpoint": Plant(
        "lives", Recovery, "journal_is_full", "self.journal.clear()", "del self.journal[:-1]"
    ),
    "restore": Plant("lives", Recovery, "_replay", "self._snapshots.items()", "()"),
    "ring": Plant("ring", CoalescedRing, "_indices", "if first >= ENTRIES or last >= ENTRIES:", "if False:"),
    "snapshot size": Plant("snapshot", uart_snapshot, "unpack", "if len(data) != _STRUCT.size:", "if False:"),
}


@contextmanager
def planted(name: str) -> Iterator[Plant]:
    """The bug is there while the context is entered."""
    plant = PLANTS[name]
    method: Any = inspect.getattr_static(plant.owner, plant.name)
    source = textwrap.dedent(inspect.getsource(method))
    if plant.good not in source:
        raise LookupError(f"{plant.owner.__name__}: {plant.name} has no {plant.good!r} any more")
    changed = source.replace(plant.good, plant.bad)
    flags = __future__.annotations.compiler_flag
    scope: dict[str, Any] = {}
    exec(compile(changed, f"<{name}>", "exec", flags), method.__globals__, scope)
    setattr(plant.owner, plant.name, scope[plant.name])
    try:
        yield plant
    finally:
        setattr(plant.owner, plant.name, method)
