"""The memory of a VGA by random programs, against QEMU: planes, latches, odd/even, chained, read modes.

The CRT controller is in byte mode: QEMU shifts addresses at an access where a VGA does when it shows them
(docs/devices/vga.md). So chained bytes are elsewhere in QEMU's planes, and are compared among themselves.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import pytest

from tests.differential.runner import ask, find_qemu, kvmbox_command, qemu_command

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(find_qemu() is None, reason="no QEMU with -accel qtest"),
]

SEQUENCER, GRAPHICS, CRTC = 0x3C4, 0x3CE, 0x3D4
START: Final = (
    *((SEQUENCER, index, value) for index, value in enumerate((3, 1, 15, 0, 6))),
    *((CRTC, 0x11, 0), (CRTC, 0x14, 0), (CRTC, 0x17, 0xE3)),
    *((GRAPHICS, index, value) for index, value in enumerate((0, 0, 0, 0, 0, 0, 5, 15, 255))),
)
MODES: Final = (0x00, 0x00, 0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x10)
MEMORY_MODES: Final = (0x06, 0x06, 0x06, 0x02)
WINDOWS: Final = (0x05, 0x05, 0x05, 0x07, 0x0D, 0x09, 0x0F)


def register(port: int, index: int, value: int) -> list[str]:
    return [f"outb {port:#x} {index:#x}", f"outb {port + 1:#x} {value:#x}"]


def program(seed: int, size: int) -> list[str]:
    """A program of so many steps, and a look at all places that it may have touched."""
    rng = random.Random(seed)
    lines = ["outb 0x3c2 0x67"]
    for setting in START:
        lines += register(*setting)
    places = [base + rng.randrange(0x7F00) for base in (0xA0000, 0xA8000, 0xB0000, 0xB8000) for _ in range(4)]
    for _ in range(size):
        place = rng.choice(places) + rng.randrange(4)
        match rng.randrange(8):
            case 0:
                lines += register(SEQUENCER, 2, rng.randrange(16))
            case 1:
                lines += register(SEQUENCER, 4, rng.choice(MEMORY_MODES))
            case 2:
                index = rng.choice((0, 1, 2, 3, 4, 7, 8))
                lines += register(GRAPHICS, index, rng.randrange(256))
            case 3:
                lines += register(GRAPHICS, 5, rng.choice(MODES))
                lines += register(GRAPHICS, 6, rng.choice(WINDOWS))
            case 4 | 5:
                lines.append(f"writeb {place:#x} {rng.randrange(256):#x}")
            case 6:
                lines.append(f"writew {place & ~1:#x} {rng.randrange(1 << 16):#x}")
            case _:
                lines.append(f"readb {place:#x}")
    for setting in START:
        lines += register(*setting)
    for plane in range(4):
        lines += register(GRAPHICS, 4, plane)
        lines += [f"read {0xA0000 + (place & 0xFFFF):#x} 8" for place in places]
    return lines


def chained(seed: int, size: int) -> list[str]:
    """Chained accesses, under map masks."""
    rng = random.Random(seed)
    lines = ["outb 0x3c2 0x67"]
    for setting in (*START, (CRTC, 0x14, 0x40), (SEQUENCER, 4, 0x0E), (GRAPHICS, 5, 0x40)):
        lines += register(*setting)
    for _ in range(size):
        place = 0xA0000 + 4 * rng.randrange(64)
        lines += register(SEQUENCER, 2, rng.choice((15, 15, rng.randrange(16))))
        lines += [f"writel {place:#x} {rng.randrange(1 << 32):#x}", f"readl {place:#x}"]
    return [*lines, "read 0xa0000 256"]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", [program, chained])
def test_memory_is_that_of_qemu(kind: Callable[[int, int], list[str]], seed: int) -> None:
    lines = kind(seed, 600)
    ours = [answer.text for answer in ask(kvmbox_command(), lines)]
    theirs = [answer.text for answer in ask([*qemu_command(), "-device", "isa-vga"], lines)]
    for number, (line, mine, other) in enumerate(zip(lines, ours, theirs, strict=True)):
        assert mine == other, (number, line, lines[max(0, number - 20) : number])
