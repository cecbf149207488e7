"""What a boot process tells of its one boot: the value, and its bytes on the way to the program.

A boot process runs a guest, and a guest may have taken it over. So a result is JSON and raw bytes, of
bounded length, and every field is checked before it is used.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, Final

from kvmbox.base.outcome import KVMBOX_FAILED, TIMED_OUT
from kvmbox.run.result.run_result import ENDING, Ending, Kinds
from kvmbox.run.result.validation import checked

MOST_HEADER: Final = 4 << 20
"""The longest JSON text, in bytes."""

MOST_OUTPUT: Final = 64 << 20
"""The longest output of a console, in bytes."""

_LENGTHS: Final = struct.Struct("=II")
REFUSAL: Final = _LENGTHS.pack(0, 0)
"""In place of a result: the machine was not prepared, or its files have changed since. Nothing has run, if
the boot process is to be believed. So the boot is run again once, by a process of another template."""


class MalformedResultError(Exception):
    """What came is no result."""


class WarmResult(Ending):
    """How one boot ended.

    `failed` is true if `kvmbox run` would print an error. `output` is what the Capture of the console has
    kept. `messages` are the lines that `kvmbox run` would have printed on stderr. `answered` counts the steps
    of the dialogue whose pattern was seen. `durations` are in ns since the order reached the boot process:
    each stage of the run, and "total". `statistics` is what `kvmbox run --json` writes; it is empty where the
    guest did not run. `lost` is true if the boot process ended without a result of its own: then the status
    is 14. `screen` is what was on the screen, as JSON.
    """

    failed: bool
    output: bytes
    messages: tuple[str, ...]
    answered: int
    durations: dict[str, int]
    statistics: dict[str, Any]
    lost: bool = False
    screen: dict[str, Any] | None = None

    @property
    def timed_out(self) -> bool:
        """Whether the option `timeout` ended the run."""
        return self.status == TIMED_OUT


def lost(reason: str, hint: str | None = None) -> WarmResult:
    """The result of a boot whose process has none."""
    return WarmResult(KVMBOX_FAILED, reason, hint, "", "", True, b"", (), 0, {}, {}, True)


_OWN: Final[Kinds] = {
    "failed": (bool,),
    "messages": (list,),
    "answered": (int,),
    "durations": (dict,),
    "statistics": (dict,),
    "screen": (dict, type(None)),
}
"""The fields that travel in JSON, beside those of every ending."""

_BOUNDS: Final = {"status": (0, 0xFF), "answered": (0, math.inf)}


def pack_result(result: WarmResult) -> bytes:
    """The bytes of a result."""
    header = json.dumps(result.encoded() | {name: getattr(result, name) for name in _OWN}).encode()
    return b"".join((_LENGTHS.pack(len(header), len(result.output)), header, result.output))


def unpack_result(received: bytes | bytearray) -> WarmResult | None:
    """The result in what was received so far, or None if that is not all of it.

    Raises MalformedResultError, as soon as that can be told.
    """
    if len(received) < _LENGTHS.size:
        return None
    header_length, output_length = _LENGTHS.unpack_from(received)
    if header_length > MOST_HEADER or output_length > MOST_OUTPUT:
        raise MalformedResultError(f"a result of {header_length} and {output_length} bytes")
    end = _LENGTHS.size + header_length + output_length
    if len(received) < end:
        return None
    if len(received) > end:
        raise MalformedResultError(f"{len(received) - end} bytes behind a result")
    header = bytes(received[_LENGTHS.size : _LENGTHS.size + header_length])
    fields = _checked(header)
    output = bytes(received[_LENGTHS.size + header_length :])
    own = {name: fields[name] for name in _OWN} | {"messages": tuple(fields["messages"])}
    return WarmResult.decoded(fields, output=output, **own)


def _checked(header: bytes) -> dict[str, Any]:
    try:
        fields = checked(json.loads(header), {**ENDING, **_OWN}, _BOUNDS)
    except (ValueError, RecursionError) as error:
        raise MalformedResultError(str(error)) from error
    if not all(isinstance(line, str) for line in fields["messages"]):
        raise MalformedResultError("a result with other messages")
    if not all(type(duration) is int for duration in fields["durations"].values()):
        raise MalformedResultError("a result with other durations")
    return fields
