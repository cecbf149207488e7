"""What audit and its payload say to each other: one request, then the frames of one attack. Pure.

    request   text: the attack's name, then one 'key=value' a line
    BEGUN     the payload has understood, and is about to make its first system call; the number is a mask of
              layers that it has taken itself
    DONE      the attack came to its end; the rest is its evidence
    STOPPED   a system call failed: which, with which errno, and how far the attack had come

A frame tells its own length, because a pipe keeps no boundaries. After BEGUN nothing is written before
the attack, so what a process dies of behind it is the attack's doing.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

HEADER: Final = struct.Struct("=BiHH")  # kind, errno, length of the call's name, length of the evidence
MAXIMUM_REQUEST: Final = 4096
MAXIMUM_EVIDENCE: Final = 1024
MAXIMUM_FRAME: Final = HEADER.size + 2 * MAXIMUM_EVIDENCE

BEGUN: Final = 1
DONE: Final = 2
STOPPED: Final = 3
_KINDS: Final = (BEGUN, DONE, STOPPED)


class WireError(ValueError):
    """Bytes that are no frame of an attack: the payload has lost its mind, or somebody else writes."""


class Stopped(Exception):
    """A system call of an attack failed. `call` is its name, `evidence` how far the attack had come."""

    def __init__(self, call: str, number: int, evidence: bytes = b"") -> None:
        super().__init__(call, number, evidence)
        self.call = call
        self.number = number
        self.evidence = evidence


def encode_request(attack: str, given: Mapping[str, str]) -> bytes:
    """The request for `attack`; ValueError if it does not fit, or a value holds a line break."""
    lines = [attack, *(f"{key}={value}" for key, value in given.items())]
    text = "\n".join(lines).encode()
    if len(text) > MAXIMUM_REQUEST or any("\n" in line for line in lines):
        raise ValueError(f"a request of {len(text)} bytes for '{attack}'")
    return text


def decode_request(request: bytes) -> tuple[str, dict[str, str]]:
    """(name of the attack, what it is given)."""
    attack, *lines = request.decode().split("\n")
    given: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition("=")
        given[key] = value
    return attack, given


def encode_frame(kind: int, number: int = 0, call: str = "", evidence: bytes = b"") -> bytes:
    """One frame of the payload; what is longer than it may be is cut."""
    name = call.encode()[:MAXIMUM_EVIDENCE]
    evidence = evidence[:MAXIMUM_EVIDENCE]
    return HEADER.pack(kind, number, len(name), len(evidence)) + name + evidence


def decode_frame(data: bytes) -> tuple[int, int, str, bytes, bytes] | None:
    """(kind, errno, call, evidence, the bytes behind the frame), or None while the frame is not whole.

    Raises WireError.
    """
    if len(data) < HEADER.size:
        return None
    kind, number, call_length, evidence_length = HEADER.unpack_from(data)
    if kind not in _KINDS or call_length > MAXIMUM_EVIDENCE or evidence_length > MAXIMUM_EVIDENCE:
        raise WireError(f"a frame of kind {kind} with {call_length} and {evidence_length} bytes")
    middle = HEADER.size + call_length
    end = middle + evidence_length
    if len(data) < end:
        return None
    return kind, number, data[HEADER.size : middle].decode(errors="replace"), data[middle:end], data[end:]
