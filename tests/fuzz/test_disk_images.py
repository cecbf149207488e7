"""Hostile disk images: who reads them never raises, and looks at a bounded number of bytes."""

from __future__ import annotations

import os
import random
from typing import Final

import pytest

from kvmbox.boot.disk_contents import disk_contents
from tests.support.disk_images import (
    CD_SECTOR,
    SECTOR,
    boot_entry,
    ext,
    fat,
    gpt,
    gpt_entry,
    iso,
    put,
    section,
    table,
    validation,
)

pytestmark = pytest.mark.thorough

COUNT: Final = int(os.environ.get("KVMBOX_FUZZ_IMAGES", "400"))
SEED: Final = 20_261_129
MOST_READS: Final = 4000
MOST_BYTES: Final = 8 << 20
NUMBERS: Final = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)


def disk(*pieces: tuple[int, bytes]) -> bytes:
    image = bytearray(2048 * SECTOR)
    for sector, data in pieces:
        put(image, sector * SECTOR, data)
    return bytes(image)


SEEDS: Final = {
    "cd": iso(validation() + boot_entry(2) + section(0xEF, boot_entry()), sectors=1000),
    "mbr": disk(
        (0, table((0x80, 0x83, 64, 100), (0, 0x05, 200, 900), (0, 0x0C, 1200, 99))),
        (64, ext()),
        (200, table((0, 0x83, 1, 9), (0, 0x05, 50, 60))),
        (250, table((0, 0x83, 1, 9))),
        (1200, fat(80)),
    ),
    "gpt": gpt([gpt_entry(34, 99, "root"), gpt_entry(100, 199)]),
}
PLACES: Final = {
    "cd": (16 * CD_SECTOR, 17 * CD_SECTOR + 0x47, 19 * CD_SECTOR, 19 * CD_SECTOR + 32, 19 * CD_SECTOR + 64),
    "mbr": (446, 462, 478, 64 * SECTOR + 1024, 200 * SECTOR + 446, 250 * SECTOR + 446, 1200 * SECTOR),
    "gpt": (SECTOR, SECTOR + 60, 2 * SECTOR, 2 * SECTOR + 128, 2047 * SECTOR, 446),
}
"""Where fields are that lead to others."""


def hostile(kind: str, seed: int) -> bytes:
    """An image made from its kind and seed alone."""
    chance = random.Random(f"{kind} {seed}")
    image = bytearray(SEEDS[kind])
    for _ in range(chance.randrange(1, 5)):
        place = chance.choice(PLACES[kind]) + chance.randrange(96)
        size = chance.choice((1, 2, 4, 8))
        number = chance.choice(NUMBERS) if chance.random() < 0.7 else chance.getrandbits(64)
        put(image, place, (number & (1 << 8 * size) - 1).to_bytes(size, "little"))
    return bytes(image[: chance.randrange(len(image))] if chance.random() < 0.2 else image)


@pytest.mark.parametrize("kind", SEEDS)
def test_hostile_images_are_described_with_bounded_work(kind: str) -> None:
    changed = 0
    right = disk_contents(lambda offset, size: SEEDS[kind][offset : offset + size], len(SEEDS[kind]))
    for seed in range(SEED, SEED + COUNT):
        image = hostile(kind, seed)
        sizes: list[int] = []

        def read(offset: int, size: int, image: bytes = image, sizes: list[int] = sizes) -> bytes:
            assert offset >= 0
            sizes.append(size)
            return image[offset : offset + size]

        found = disk_contents(read, len(image))

        assert len(sizes) < MOST_READS, seed
        assert sum(sizes) < MOST_BYTES, seed
        assert found is None or str(found.as_json()).isprintable(), seed
        changed += found != right
    assert changed > COUNT * 0.2
