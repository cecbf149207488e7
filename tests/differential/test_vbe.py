"""The display interface of Bochs against QEMU's: the same random program to both, the same answers.

Left out is what docs/devices/vbe.md lists as departures. QEMU is that of test_differential.py.
"""

from __future__ import annotations

import random
from typing import Final

import pytest

from tests.differential.runner import ask, find_qemu, kvmbox_command, qemu_command

pytestmark = pytest.mark.thorough

needs_qemu = pytest.mark.skipif(
    find_qemu() is None,
    reason="no QEMU with -accel qtest: install qemu-system-xen, or name one in KVMBOX_QEMU",
)

BPP, ENABLE, BANK = 3, 4, 5
VALUES: Final = (
    *(0, 1, 2, 3, 5, 7, 8, 15, 16, 24, 32, 200, 320, 480, 600, 640, 641, 768, 800, 1024, 1280, 1600, 2000),
    *(4000, 16000, 16001, 0x41, 0x61, 0xC1, 0xB0BF, 0xB0C0, 0xB0C5, 0xB0C6, 0xFFFF),
)


def program(seed: int) -> list[str]:
    """Registers in any order, and bytes in the frame buffer by the window."""
    rng = random.Random(seed)
    lines: list[str] = []
    index = 0
    while len(lines) < 3000:
        data = rng.choice(("0x1cf", "0x1d0"))
        match rng.randrange(5):
            case 0 | 1:
                index = rng.choice((*range(11), 11, 0xFF, 0xFFFF))
                lines.append(f"outw 0x1ce {index:#x}")
            case 2:
                value = rng.choice((*VALUES, rng.randrange(1 << 16)))
                if index == BPP and value == 4:
                    continue
                lines.append(f"outw {data} {value:#x}")
            case 3:
                lines.append(f"inw {rng.choice(('0x1ce', data))}")
            case _:
                lines += shown(rng)
                index = BANK
    return lines


def shown(rng: random.Random) -> list[str]:
    """A mode, and the same places in two pieces of it."""
    banks = rng.sample(range(256), 2)
    places = [rng.randrange(1 << 16) for _ in range(4)]
    lines = ["outw 0x1ce 4", "outw 0x1cf 0", "outw 0x1ce 3", "outw 0x1cf 8", "outw 0x1ce 4"]
    lines += [f"outw 0x1cf {rng.choice((0x41, 0xC1)):#x}", "outw 0x1ce 5"]
    for bank in banks:
        lines.append(f"outw 0x1cf {bank}")
        lines += [f"writeb {0xA0000 + place:#x} {rng.randrange(256)}" for place in places]
    for bank in banks:
        lines.append(f"outw 0x1cf {bank}")
        lines += [f"readb {0xA0000 + place:#x}" for place in places]
    return lines


@needs_qemu
@pytest.mark.parametrize("seed", range(4))
def test_random_programs_give_the_same_as_qemu(seed: int) -> None:
    lines = program(seed)
    ours = [answer.text for answer in ask(kvmbox_command(), lines)]
    theirs = [answer.text for answer in ask([*qemu_command(), "-device", "VGA,vgamem_mb=16"], lines)]
    different = [place for place, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other]
    for place in different[:1]:
        pytest.fail(f"{lines[max(0, place - 9) : place + 1]}: {ours[place]}, and QEMU {theirs[place]}")
