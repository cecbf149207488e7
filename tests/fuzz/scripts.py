"""Programs of drivers that lead a model to where bytes by chance rarely do. An input may begin with one.

Each follows the data sheet that its model names.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base.layout import VGA_LATE_WRITES
from kvmbox.contract.model import DONE, FAILED, MOVED
from kvmbox.devices.e1000.model import OFFER
from tests.support.model_programs import Step, program


def _words(*writes: tuple[int, int]) -> list[Step]:
    """Writes of 4 bytes: (offset, value) each."""
    return [Step("write", 0, offset, 4, value) for offset, value in writes]


def _mouse(*data: int) -> list[Step]:
    """Bytes for the mouse, each behind the command that leads there."""
    return program((1, 0xA8), *[pair for byte in data for pair in ((1, 0xD4), (0, byte))])


def _packet(command: str) -> list[Step]:
    """A packet for the CD drive, padded."""
    words = struct.unpack("<6H", bytes.fromhex(command).ljust(12, b"\0"))
    start = program((6, 0x10), (1, 0), (4, 0), (5, 8), (7, 0xA0))
    return [*start, *[Step("write", 0, 0, 2, word) for word in words], Step("read", 0, 7)]


_MODE_6: Final = ((0x14, 2), (0x15, 1), (0x14, 4), (0x15, 6), (0x1E, 5), (0x1F, 0), (0x1E, 6), (0x1F, 0x0D))
_VIRTIO: Final = [
    *_words((0x70, 0), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11)),
    *_words(*[one for index in (0, 1) for one in ((0x30, index), (0x38, 8), (0x80, 0x1000), (0x44, 1))]),
    *_words((0x70, 15)),
]
_RINGS: Final = [
    *_words((0x2800, 0x1000), (0x2808, 1024), (0x3800, 0x8000), (0x3808, 1024), (0x100, 0x801A), (0x400, 2)),
    *[step for tail in range(2, 26) for step in _words((0x2818, tail), (0x3818, tail))],
]
_OFFERS: Final = Step("receive", 0, data=OFFER.pack(60, b"\xff" * 6, bytes(4)) * 60)
_VIEWER: Final = (b"N" + struct.pack(">HH", 640, 480), b"CRFB 003.008\n", b"C\x01", b"C\x01")


def _said(*pieces: bytes) -> list[Step]:
    return [Step("receive", 0, data=piece) for piece in pieces]


SCRIPTS: Final[dict[str, tuple[list[Step], ...]]] = {
    "uart_16550a": (
        [*program((4, 0x10), (0, 1), (0, 2), (4, 0)), Step("read", 0, 5)],
        [*program((1, 2)), Step("read", 0, 2), Step("run", 0, 0, data=b"ab")],
    ),
    "rtc_mc146818": ([Step("read", 0, 1, 2)], program((0, 0x0B), (1, 0x82))),
    "i8042": (
        [
            *_mouse(*(0xF3, 200, 0xF3, 100, 0xF3, 80, 0xF2, 0xF4)),
            *[Step("receive", 0, data=bytes((0, 0, 0, 0, 0, 0, 1)))] * 3,
            *[Step("read", 0, 0)] * 12,
        ],
        _mouse(0xE8, 2),
    ),
    "ide": (
        [*program((6, 0x10), (7, 0xA1)), *[Step("read", 0, 0, 2)] * 256],
        [*_packet("be 00 00 00 00 01 00 00 01 00"), *_packet("be 00 00 00 00 01 00 00 01 f8")],
        _packet("43 00 00 00 00 00 aa 00 20"),
        [*_packet("1b 00 00 00 02"), *_packet("5a 00 3f 00 00 00 00 00 40")],
        [
            *program((6, 0x40), (1, 0x82), (7, 0xEF)),
            Step("complete", 0, 8, DONE),
            *program((2, 1), (3, 1), (4, 0), (5, 0), (7, 0x30)),
            *[Step("write", 0, 0, 2, 0x55AA)] * 256,
            *[Step("complete", 0, 8, status) for status in (MOVED, DONE) * 2],
        ],
    ),
    "hpet": ([Step("read", 0, 0x20, 4), Step("read", 0, 0x110, 8), Step("write", 0, 0x110, 8, 1)],),
    "vga_text": (
        [
            *program(*_MODE_6, (0x1E, 8), (0x1F, 0xFF)),
            Step("write", 0, 0xB8000, 2, 0x0720),
            Step("read", 0, 0xB8001),
        ],
        [
            *program((0x16, 15), (0x14, 4), (0x15, 6), (0x1E, 5), (0x1F, 0), (0x1E, 6), (0x1F, 5)),
            Step("string", 0, VGA_LATE_WRITES, 8, data=struct.pack("<QQ", 0xA00012 << 32, 0xA00032 << 32)),
        ],
        [Step("string", 0, 0x14, 1, data=b"\1\2"), Step("string", 0, VGA_LATE_WRITES, 4, data=bytes(8))],
    ),
    **dict.fromkeys(
        ("virtio_blk", "virtio_rng"),
        (
            [
                *_VIRTIO,
                *[one for shape in range(80) for one in (Step("shape", 0, value=shape), *_words((0x50, 0)))],
                *[Step("complete", 0, tag, FAILED, tag) for tag in (8, 0)],
            ],
        ),
    ),
    "virtio_console": (
        [
            *_VIRTIO,
            *[one for _ in range(20) for one in (Step("shape", 0, value=0), *_words((0x50, 0)))],
            Step("receive", 0, data=bytes(4000)),
        ],
    ),
    "pci_host": (_words((0, 0x8000_3840), (4, 1 << 16), (0, 0x8000_3844), (4, 0xFEE0_0000)),),
    "E1000": (
        [*_RINGS, _OFFERS],
        [*_RINGS, *_words((0x2808, 0), (0x3808, 0)), _OFFERS, *_words((0x3818, 1))],
    ),
    "RfbServer": (_said(_VIEWER[0], b"CRFB 003.008x"), _said(*_VIEWER, b"C\x02\0\xff\xff" + bytes(5000))),
}
"""By the name of the model."""
