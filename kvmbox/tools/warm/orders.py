"""What a pool asks of a boot process: to run a boot, or to prepare one that it will perhaps ask for.

    RUN      run this order
    PREPARE  prepare the machine of this order; RUN_IT follows, or the end of file
    RUN_IT   run what was prepared

A request has the time at which it was sent, from which the boot's time counts: the boot process may read it
later. An order is a pickle: it comes from the program that has started the boot process.
"""

from __future__ import annotations

import pickle
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value

RUN: Final = 1
PREPARE: Final = 2
RUN_IT: Final = 3

_HEAD: Final = struct.Struct("=BQI")  # kind, ns of the monotonic clock, length of the order


class BootOrder(Value):
    """What a boot process is to do: the options of `kvmbox.Machine`, the dialogue, the working directory.

    `dialogue` has pairs: a regular expression, and the bytes to send when the console has shown a match.
    """

    options: dict[str, Any]
    dialogue: tuple[tuple[bytes, bytes], ...]
    directory: str


class Request(Value):
    """One request. `at` is when it was sent, in ns of the monotonic clock; RUN_IT has no order."""

    kind: int
    at: int
    order: BootOrder | None


def pack_order(
    options: Mapping[str, Any], dialogue: Sequence[tuple[str | bytes, bytes]], directory: str
) -> bytes:
    """The bytes of an order. UsageError if an option is something that cannot be sent to another process."""
    pairs = tuple(
        (pattern.encode() if isinstance(pattern, str) else pattern, answer) for pattern, answer in dialogue
    )
    try:
        return pickle.dumps(BootOrder(dict(options), pairs, directory))
    except Exception as error:  # whatever the object's own reduction raises
        raise UsageError(
            f"an option cannot be sent to another process: {error}",
            hint="give numbers, texts and values of kvmbox; a console is captured by itself",
        ) from error


def request(kind: int, order: bytes = b"") -> bytes:
    """The bytes of a request that is sent now."""
    return _HEAD.pack(kind, time.monotonic_ns(), len(order)) + order


def read_request(receive: Any) -> Request | None:
    """The request that `receive(size)` gives, or None if there comes none: the boot process is not needed."""
    head = _exactly(receive, _HEAD.size)
    if head is None:
        return None
    kind, at, length = _HEAD.unpack(head)
    if not length:
        return Request(kind, at, None)
    data = _exactly(receive, length)
    if data is None:
        return None
    order = pickle.loads(data)  # noqa: S301 - from the program that started this process
    assert isinstance(order, BootOrder)
    return Request(kind, at, order)


def _exactly(receive: Any, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = receive(size - len(data))
        if not part:
            return None
        data += part
    return bytes(data)
