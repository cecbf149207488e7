"""What runs in a device process in place of its models, in the tests of the sandbox."""

from __future__ import annotations

import _socket
import ctypes
import os
import struct
from collections.abc import Callable

from kvmbox.jail import linux

CALL = struct.Struct("=q6Q")
RESULT = struct.Struct("=qi")


def echo(channel: int) -> None:
    """Send everything back."""
    while request := os.read(channel, 4096):
        os.write(channel, request)


def call(channel: int) -> None:
    """Make each system call that is asked for; answer with its result and errno."""
    while request := os.read(channel, CALL.size):
        number, *arguments = CALL.unpack(request)
        result = linux.raw_syscall(number, *arguments)
        os.write(channel, RESULT.pack(result, ctypes.get_errno() if result < 0 else 0))


def stress_memory(channel: int) -> None:
    """Grow and shrink every kind of memory that CPython has, then say so."""
    os.read(channel, 1)
    for _ in range(3):
        small = [bytes([i & 0xFF]) * 200 for i in range(50_000)]  # object arenas
        table = {i: str(i) for i in range(100_000)}  # a dict that is resized
        growing: list[int] = []
        for i in range(400_000):  # a block that realloc moves, large enough for mremap
            growing.append(i)
        buffer = bytearray()
        for _ in range(64):
            buffer += bytes(1 << 20)
        del small, table, growing, buffer
    for depth in (10, 200, 800):  # frames come in chunks of arena memory
        _recurse(depth)
    os.write(channel, b"done")


def _recurse(depth: int) -> int:
    return depth and _recurse(depth - 1)


def exhaust_memory(channel: int) -> None:
    """Ask for a gigabyte; say how that ended."""
    os.read(channel, 1)
    try:
        block = bytearray(1 << 30)
    except MemoryError:
        os.write(channel, b"MemoryError")
    else:
        os.write(channel, b"got %d" % len(block))


def fail(channel: int) -> None:
    """Raise at the first request."""
    os.read(channel, 1)
    raise ValueError("a model's bug")


def leave(channel: int) -> int:
    """Return an exit status at the first request."""
    os.read(channel, 1)
    return 7


def try_without_filter(channel: int) -> None:
    """What other layers stop: answer 'name=errno' for each, 0 where it worked. The request is a pid."""
    victim = int(os.read(channel, 16))
    results = {
        "open": _errno(lambda: os.open("/", os.O_RDONLY)),  # which is not closed: that may be sealed
        "bind": _errno(_bind),
        "kill": _errno(lambda: os.kill(victim, 0)),
        "dumpable": linux.prctl(linux.PR_GET_DUMPABLE, name="PR_GET_DUMPABLE"),
    }
    os.write(channel, " ".join(f"{name}={result}" for name, result in results.items()).encode())


def _bind() -> None:
    socket = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0)
    try:
        socket.bind(("127.0.0.1", 0))
    finally:
        socket.detach()


def _errno(action: Callable[[], object]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0
