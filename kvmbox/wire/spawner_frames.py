"""The frames between the VMM and its spawner.

One frame is one SOCK_SEQPACKET message: a fixed header, then a payload whose meaning depends on the kind.

    VMM → spawner                                     descriptors
      SPAWN     number = CPU or -1, mask = required   the device's end of the channel: a socket, or two
                layers, payload = entry, type, BPF    pipes, or two pipes and shared memory
      KILL      that device process, if it lives
      SHUTDOWN  kill and reap what is left, and exit;
                PID 1 leaves the reaping to the kernel
    spawner → VMM
      STAGED    number = pid of the real spawner      its pidfd
                (from its stage or template)
      HELLO     number = protocol version, mask = the spawner's own layers, payload = why others are missing,
                identifier = bits: STAGED comes too; the user
                namespace is owned by the VMM's user
      PROCESS   number = pid as the spawner sees it   the pidfd
      READY     number = Landlock ABI used, mask =    the seccomp listener, under a filter
                layers applied
      FAILED    payload = why the process never served
      DEATH     number = wait status, payload = why
                the spawner killed it, if it did
      FATAL     payload = why the spawner gave up

A device process sends READY and FAILED to the spawner.

`identifier` is the VMM's number of the device process in all that concern one. Both ends are ours and of
one version; a frame that does not parse is a bug or a memory error, and ends the spawner.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

VERSION: Final = 4
HEADER: Final = struct.Struct("=BIiI")  # kind, identifier, number, mask
SPAWN_PAYLOAD: Final = struct.Struct("=BB")  # index of the entry, length of the type name; name, BPF
MAXIMUM_FRAME: Final = 64 * 1024
MAXIMUM_TEXT: Final = 4096

SPAWN: Final = 1
SHUTDOWN: Final = 2
HELLO: Final = 3
PROCESS: Final = 4
READY: Final = 5
FAILED: Final = 6
DEATH: Final = 7
FATAL: Final = 8
STAGED: Final = 9
KILL: Final = 10

NO_CPU: Final = -1
STAGED_TOO: Final = 1 << 0
OWNED: Final = 1 << 1


class FrameError(Exception):
    """A frame between the VMM and the spawner is not what it may be."""


def pack(kind: int, identifier: int = 0, number: int = 0, mask: int = 0, payload: bytes = b"") -> bytes:
    """One frame."""
    return HEADER.pack(kind, identifier, number, mask) + payload


def unpack(frame: bytes) -> tuple[int, int, int, int, bytes]:
    """(kind, identifier, number, mask, payload); raises FrameError."""
    if len(frame) < HEADER.size:
        raise FrameError(f"a frame of {len(frame)} bytes")
    kind, identifier, number, mask = HEADER.unpack_from(frame)
    return kind, identifier, number, mask, frame[HEADER.size :]


def pack_spawn(entry: int, device_type: str, bpf: bytes) -> bytes:
    """The payload of SPAWN. Raises FrameError if it is longer than a frame may be."""
    name = device_type.encode()
    if len(name) > 0xFF or HEADER.size + SPAWN_PAYLOAD.size + len(name) + len(bpf) > MAXIMUM_FRAME:
        raise FrameError("a spawn request is too long")
    return SPAWN_PAYLOAD.pack(entry, len(name)) + name + bpf


def unpack_spawn(payload: bytes) -> tuple[int, str, bytes]:
    """(index of the entry, device type, BPF); raises FrameError."""
    if len(payload) < SPAWN_PAYLOAD.size:
        raise FrameError("a spawn request is too short")
    entry, length = SPAWN_PAYLOAD.unpack_from(payload)
    end = SPAWN_PAYLOAD.size + length
    if len(payload) < end:
        raise FrameError("a spawn request is too short")
    return entry, payload[SPAWN_PAYLOAD.size : end].decode(), payload[end:]


def pack_reasons(reasons: Mapping[str, str]) -> bytes:
    """The payload of HELLO: a line for each layer."""
    return text_payload("\n".join(f"{name}: {reason}" for name, reason in reasons.items()))


def unpack_reasons(payload: bytes) -> dict[str, str]:
    """The reasons by the layer's name."""
    pairs = (line.partition(": ") for line in payload.decode(errors="replace").split("\n"))
    return {name: reason for name, _, reason in pairs if reason}


def text_payload(text: str) -> bytes:
    """A reason as a bounded payload."""
    return text.encode(errors="replace")[:MAXIMUM_TEXT]
