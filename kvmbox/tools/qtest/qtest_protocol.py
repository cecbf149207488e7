"""QEMU's qtest line protocol, pure: what a line asks for, and how an answer is written.

A request is one line of words separated by one blank each, so two blanks have an empty word between them.
Words beyond those that a command takes are ignored, as QEMU does. Numbers are those of C's strtoul with
base 0: 0x1f, 017, 15, with a sign if need be; a negative number is taken modulo 2**64.

QEMU's server aborts on a request that it knows but cannot read; this one answers FAIL with the reason.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.remote.channel.deadlines import printable

PORT_SIZES: Final = {b"b": 1, b"w": 2, b"l": 4}
MEMORY_SIZES: Final = {**PORT_SIZES, b"q": 8}
LAST_PORT: Final = 0xFFFF
MAX_TRANSFER: Final = 16 << 20
"""The most bytes that one `read` or `b64read` gives; it bounds what an answer costs."""

MAX_LINE: Final = 2 * MAX_TRANSFER + 256
"""The longest line, in bytes: a `write` of MAX_TRANSFER bytes fits."""

MAX_TIME: Final = (1 << 63) - 1
"""Virtual time is a signed 64-bit number of nanoseconds."""

_WORD_MASK: Final = (1 << 64) - 1
_NUMBER: Final = re.compile(rb"[ \t\v\f\r]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_SHOWN: Final = 100
"""How much of an unknown word an answer repeats."""


class RequestError(ValueError):
    """A line that is no request of this protocol; the message goes behind FAIL, or ERR if `kind` says so."""

    def __init__(self, message: str, kind: str = "FAIL") -> None:
        super().__init__(message)
        self.kind = kind


class Request(Value):
    """What a client asks for."""


class PortRead(Request):
    """`inb`, `inw`, `inl`."""

    port: int
    size: int


class PortWrite(Request):
    """`outb`, `outw`, `outl`."""

    port: int
    size: int
    value: int


class MemoryRead(Request):
    """`readb` … `readq`: one access of `size` bytes."""

    address: int
    size: int


class MemoryWrite(Request):
    """`writeb` … `writeq`: one access of `size` bytes."""

    address: int
    size: int
    value: int


class BlockRead(Request):
    """`read`, or with `base64` `b64read`."""

    address: int
    size: int
    base64: bool


class BlockWrite(Request):
    """`write`, `b64write`."""

    address: int
    data: bytes


class Memset(Request):
    """`memset`."""

    address: int
    size: int
    value: int


class ClockStep(Request):
    """`clock_step`: by `amount` ns, or to the next deadline if None."""

    amount: int | None


class ClockSet(Request):
    """`clock_set`: to `time` ns."""

    time: int


class InterceptIrqs(Request):
    """`irq_intercept_in PATH`: this board has one set of lines, so the path chooses nothing."""


class Endianness(Request):
    """`endianness`."""


Words = list[bytes]


def parse(line: bytes) -> Request:
    """The request in `line`, which has no line feed; RequestError if there is none."""
    words = line.split(b" ")
    parser = _PARSERS.get(words[0])
    if parser is None:
        raise RequestError(f"Unknown command {_quoted(words[0])}")
    try:
        return parser(words)
    except IndexError:
        raise RequestError(f"{words[0].decode()} wants more words") from None


def number(word: bytes) -> int:
    """An unsigned 64-bit number; RequestError if `word` is none."""
    value = _signed(word)
    if not -_WORD_MASK <= value <= _WORD_MASK:
        raise RequestError(f"{_quoted(word)} does not fit in 64 bits")
    return value & _WORD_MASK


def time(word: bytes) -> int:
    """A signed 64-bit number; RequestError if `word` is none."""
    value = _signed(word)
    if not -MAX_TIME - 1 <= value <= MAX_TIME:
        raise RequestError(f"{_quoted(word)} does not fit in 64 bits")
    return value


def _signed(word: bytes) -> int:
    found = _NUMBER.fullmatch(word, 0, 64)
    if found is None or len(word) > 64:
        raise RequestError(f"{_quoted(word)} is not a number")
    digits = found[2]
    # Python's base 0 wants 0o where C has a bare 0.
    value = int(digits, 8) if digits[:1] == b"0" and digits[1:2].isdigit() else int(digits, 0)
    return -value if found[1] == b"-" else value


def _quoted(word: bytes) -> str:
    return f"'{printable(word, _SHOWN)}'"


def _port(word: bytes) -> int:
    port = number(word)
    if port > LAST_PORT:
        raise RequestError(f"{_quoted(word)} is not a port")
    return port


def _port_read(size: int) -> Callable[[Words], Request]:
    return lambda words: PortRead(_port(words[1]), size)


def _port_write(size: int) -> Callable[[Words], Request]:
    mask = (1 << 8 * size) - 1
    return lambda words: PortWrite(_port(words[1]), size, number(words[2]) & mask)


def _memory_read(size: int) -> Callable[[Words], Request]:
    return lambda words: MemoryRead(number(words[1]), size)


def _memory_write(size: int) -> Callable[[Words], Request]:
    mask = (1 << 8 * size) - 1
    return lambda words: MemoryWrite(number(words[1]), size, number(words[2]) & mask)


def _block_size(word: bytes) -> int:
    size = number(word)
    if size > MAX_TRANSFER:
        raise RequestError(f"{size} bytes are more than {MAX_TRANSFER}, the most at once")
    return size


def _read(words: Words) -> Request:
    address, size = number(words[1]), _block_size(words[2])
    if not size:
        raise RequestError("a read of 0 bytes has no answer")
    return BlockRead(address, size, base64=False)


def _write(words: Words) -> Request:
    address, size, text = number(words[1]), _block_size(words[2]), words[3]
    if len(text) < 3:
        raise RequestError("invalid argument size", kind="ERR")
    if text[:2] not in (b"0x", b"0X"):
        raise RequestError("DATA does not begin with 0x")
    digits = text[2 : 2 + 2 * size]
    try:
        # A digit without its partner is none, as in QEMU.
        data = bytes.fromhex(digits[: len(digits) & ~1].decode("ascii"))
    except ValueError:
        raise RequestError("DATA is not a hexadecimal number") from None
    return BlockWrite(address, data.ljust(size, b"\0"))


def _b64write(words: Words) -> Request:
    address, size, text = number(words[1]), _block_size(words[2]), words[3]
    if len(text) < 3:
        raise RequestError("invalid argument size", kind="ERR")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise RequestError("DATA is not base64") from None
    return BlockWrite(address, data[:size])


def _irq_intercept_in(words: Words) -> Request:
    words[1]  # the path must be there, whatever it is
    return InterceptIrqs()


_PARSERS: Final[dict[bytes, Callable[[Words], Request]]] = {
    **{b"in" + letter: _port_read(size) for letter, size in PORT_SIZES.items()},
    **{b"out" + letter: _port_write(size) for letter, size in PORT_SIZES.items()},
    **{b"read" + letter: _memory_read(size) for letter, size in MEMORY_SIZES.items()},
    **{b"write" + letter: _memory_write(size) for letter, size in MEMORY_SIZES.items()},
    b"read": _read,
    b"b64read": lambda words: BlockRead(number(words[1]), _block_size(words[2]), base64=True),
    b"write": _write,
    b"b64write": _b64write,
    b"memset": lambda words: Memset(number(words[1]), number(words[2]), number(words[3]) & 0xFF),
    b"clock_step": lambda words: ClockStep(time(words[1]) if len(words) > 1 else None),
    b"clock_set": lambda words: ClockSet(time(words[1])),
    b"irq_intercept_in": _irq_intercept_in,
    b"endianness": lambda _words: Endianness(),
}


# --- Answers ---------------------------------------------------------------------------------------------

OK: Final = b"OK\n"
LITTLE: Final = b"OK little\n"
NO_ADVANCE: Final = b"FAIL could not advance time\n"
NO_DEADLINE: Final = b"FAIL cannot advance clock to the next deadline because there is no pending deadline\n"
LINE_TOO_LONG: Final = f"FAIL a line is longer than {MAX_LINE} bytes\n".encode()


def ok_port(value: int) -> bytes:
    """The answer to `inb`, `inw`, `inl`: four digits at least, whatever the size."""
    return b"OK 0x%04x\n" % value


def ok_memory(value: int) -> bytes:
    """The answer to `readb` … `readq`."""
    return b"OK 0x%016x\n" % value


def ok_block(data: bytes, *, base64_text: bool) -> bytes:
    """The answer to `read` and `b64read`."""
    text = base64.b64encode(data) if base64_text else b"0x" + data.hex().encode()
    return b"OK " + text + b"\n"


def ok_time(now: int) -> bytes:
    """The answer to a clock command that moved the clock."""
    return b"OK %d\n" % now


def fail_time(now: int) -> bytes:
    """The answer to `clock_set` into the past."""
    return b"FAIL %d\n" % now


def fail(error: RequestError) -> bytes:
    """The answer to a line that is no request."""
    return f"{error.kind} {error}\n".encode()


def irq(line: int, level: int) -> bytes:
    """The message about a level change of an interrupt line."""
    return b"IRQ %s %d\n" % (b"raise" if level else b"lower", line)
