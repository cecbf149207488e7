"""An encoder of ACPI Machine Language: names, constants, packages, devices and resource templates.

Every function returns the bytes of one term, and takes the terms within it as bytes. Only what a namespace of
constants needs is here: no methods, fields or operators (ACPI Specification 6.5, chapter 20; resource
descriptors: section 6.4).
"""

from __future__ import annotations

import struct
from typing import Final

# Section 20.2: opcodes and prefixes.
_ZERO_OP: Final = b"\x00"
_ONE_OP: Final = b"\x01"
_NAME_OP: Final = b"\x08"
_BYTE_PREFIX: Final = b"\x0a"
_WORD_PREFIX: Final = b"\x0b"
_DWORD_PREFIX: Final = b"\x0c"
_STRING_PREFIX: Final = b"\x0d"
_QWORD_PREFIX: Final = b"\x0e"
_SCOPE_OP: Final = b"\x10"
_BUFFER_OP: Final = b"\x11"
_PACKAGE_OP: Final = b"\x12"
_DEVICE_OP: Final = b"\x5b\x82"

_NAME_SEGMENT_SIZE: Final = 4
_LEAD_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_NAME_CHARACTERS: Final = _LEAD_CHARACTERS | frozenset("0123456789")

# Section 6.4: small resource items have type and length in one byte, large ones in three.
_IRQ_NO_FLAGS: Final = 0x22
_IO_PORT: Final = 0x47
_END_TAG: Final = b"\x79\x00"  # a checksum of 0: not checked
_MEMORY32_FIXED: Final = 0x86
_INTERRUPT: Final = 0x89
_WORD_SPACE: Final = 0x88
_DWORD_SPACE: Final = 0x87
_MEMORY_SPACE: Final = 0
_IO_SPACE: Final = 1
_BUS_SPACE: Final = 2
_FIXED_WINDOW: Final = 0b1100  # for the devices behind it; first and last address are fixed
_ENTIRE_RANGE: Final = 3
_CONSUMER: Final = 1
_DECODES_16_BITS: Final = 1
_READ_WRITE: Final = 1


def package_length(content: int) -> bytes:
    """PkgLength of `content` bytes: it counts itself (section 20.2.4)."""
    if content + 1 < 1 << 6:
        return bytes([content + 1])
    for following in (1, 2, 3):
        total = content + 1 + following
        if total < 1 << (4 + 8 * following):
            lead = following << 6 | total & 0xF
            return bytes([lead]) + (total >> 4).to_bytes(following, "little")
    raise ValueError(f"{content} bytes are more than a package can hold")


def _package(opcode: bytes, content: bytes) -> bytes:
    return opcode + package_length(len(content)) + content


def name_segment(text: str) -> bytes:
    """A name of one segment, relative to the scope that it stands in (section 20.2.2)."""
    if (
        not 1 <= len(text) <= _NAME_SEGMENT_SIZE
        or text[0] not in _LEAD_CHARACTERS
        or not _NAME_CHARACTERS.issuperset(text)
    ):
        raise ValueError(f"{text!r} is no name of one segment")
    return text.ljust(_NAME_SEGMENT_SIZE, "_").encode("ascii")


def integer(value: int) -> bytes:
    """An integer of at most 64 bits, in the shortest form."""
    if value == 0:
        return _ZERO_OP
    if value == 1:
        return _ONE_OP
    for prefix, size in ((_BYTE_PREFIX, 1), (_WORD_PREFIX, 2), (_DWORD_PREFIX, 4), (_QWORD_PREFIX, 8)):
        if 0 < value < 1 << (8 * size):
            return prefix + value.to_bytes(size, "little")
    raise ValueError(f"{value} is no integer of AML")


def string(text: str) -> bytes:
    """A string of ASCII characters, without NUL."""
    encoded = text.encode("ascii")
    if b"\0" in encoded:
        raise ValueError(f"{text!r} holds a NUL")
    return _STRING_PREFIX + encoded + b"\0"


def eisa_id(text: str) -> bytes:
    """The compressed form of a Plug and Play id: three capital letters and four hexadecimal digits.

    Five bits for each letter and four for each digit, most significant first (ASL's EISAID macro).
    """
    letters, digits = text[:3], text[3:]
    if len(text) != 7 or not all("A" <= letter <= "Z" for letter in letters):
        raise ValueError(f"{text!r} is no Plug and Play id")
    value = 0
    for letter in letters:
        value = value << 5 | (ord(letter) - ord("A") + 1)
    value = value << 16 | int(digits, 16)
    return _DWORD_PREFIX + value.to_bytes(4, "big")


def name(segment: str, value: bytes) -> bytes:
    """Name(segment, value): an object of the namespace."""
    return _NAME_OP + name_segment(segment) + value


def package(*elements: bytes) -> bytes:
    """Package() {elements}, at most 255 of them."""
    return _package(_PACKAGE_OP, bytes([len(elements)]) + b"".join(elements))


def scope(segment: str, *terms: bytes) -> bytes:
    """Scope(segment) {terms}: the terms belong to a place that exists already."""
    return _package(_SCOPE_OP, name_segment(segment) + b"".join(terms))


def device(segment: str, *terms: bytes) -> bytes:
    """Device(segment) {terms}."""
    return _package(_DEVICE_OP, name_segment(segment) + b"".join(terms))


def buffer(data: bytes) -> bytes:
    """Buffer() {data}."""
    return _package(_BUFFER_OP, integer(len(data)) + data)


def resource_template(*descriptors: bytes) -> bytes:
    """ResourceTemplate() {descriptors}: a buffer, with an end tag."""
    return buffer(b"".join(descriptors) + _END_TAG)


def io_ports(first: int, count: int) -> bytes:
    """IO(Decode16, first, first, 1, count): `count` I/O ports from `first` on (section 6.4.2.5)."""
    return struct.pack("<BBHHBB", _IO_PORT, _DECODES_16_BITS, first, first, 1, count)


def irq(*numbers: int) -> bytes:
    """IRQNoFlags() {numbers}: edge triggered, active high, not shared (section 6.4.2.1)."""
    return struct.pack("<BH", _IRQ_NO_FLAGS, sum(1 << number for number in set(numbers)))


def interrupt(number: int) -> bytes:
    """Interrupt(ResourceConsumer, Level, ActiveHigh, Exclusive) {number}: any line (section 6.4.3.6)."""
    return struct.pack("<BHBBI", _INTERRUPT, 6, _CONSUMER, 1, number)


def memory32_fixed(base: int, size: int, *, writable: bool) -> bytes:
    """Memory32Fixed(ReadWrite or ReadOnly, base, size) (section 6.4.3.4)."""
    return struct.pack("<BHBII", _MEMORY32_FIXED, 9, _READ_WRITE * writable, base, size)


def bus_numbers(first: int, last: int) -> bytes:
    """WordBusNumber(ResourceProducer, MinFixed, MaxFixed, first to last) (section 6.4.3.5.3)."""
    return _word_space(_BUS_SPACE, 0, first, last)


def io_window(first: int, last: int) -> bytes:
    """WordIO(ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, first to last)."""
    return _word_space(_IO_SPACE, _ENTIRE_RANGE, first, last)


def _word_space(kind: int, flags: int, first: int, last: int) -> bytes:
    numbers = (0, first, last, 0, last - first + 1)
    return struct.pack(
        "<BHBBB5H", _WORD_SPACE, 13, kind, _FIXED_WINDOW, flags, *(n & 0xFFFF for n in numbers)
    )


def memory_window(first: int, last: int) -> bytes:
    """DWordMemory(ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite, first to last)
    (section 6.4.3.5.2).
    """
    numbers = (0, first, last, 0, last - first + 1)
    return struct.pack("<BHBBB5I", _DWORD_SPACE, 23, _MEMORY_SPACE, _FIXED_WINDOW, _READ_WRITE, *numbers)
