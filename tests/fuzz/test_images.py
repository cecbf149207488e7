"""The fuzzer of guest images, briefly: nothing is wrong, and what would be wrong is found."""

from __future__ import annotations

import os
import random
from typing import Final

import pytest

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, BootPlan, GuestImage, load_image
from kvmbox.boot.segments import LoadSegment
from tests.fuzz.images import MAX_COST, SEEDS, SIZE, check, wrong_in
from tests.support.dice import Dice

pytestmark = pytest.mark.thorough

COUNT: Final = int(os.environ.get("KVMBOX_FUZZ_IMAGES", "400"))
SEED: Final = 20_261_126
MEMORY: Final = GuestMemory(SIZE)
SEGMENT: Final = LoadSegment(0, 0, 32, 0x100000, 32)


@pytest.mark.parametrize("kind", SEEDS)
def test_hostile_images_are_refused_or_planned_soundly(kind: str) -> None:
    source = random.Random(SEED)
    accepted = sum(check(kind, Dice(source.randbytes(40))) for _ in range(COUNT))

    # Images that are all refused test nothing behind the first check.
    assert 0.1 * COUNT < accepted < 0.9 * COUNT


@pytest.mark.parametrize("kind", SEEDS)
def test_seeds_are_right_images_of_their_format(kind: str) -> None:
    for data, _ in SEEDS[kind]:
        MEMORY.clear()
        plan = load_image(GuestImage("seed", data), MEMORY, BootOptions())
        assert plan.format.startswith(kind)
        assert wrong_in(plan, MEMORY, len(data)) == ""


def planned(
    entry: int = 0x100000,
    segments: tuple[LoadSegment, ...] = (SEGMENT,),
    writes: tuple[tuple[int, bytes], ...] = (),
) -> BootPlan:
    MEMORY.clear()
    state = load_image(GuestImage("seed", SEEDS["elf"][0][0]), MEMORY, BootOptions()).state
    return BootPlan("elf", state, entry, segments, writes)


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (planned(), ""),
        (planned(entry=0x100020), "in no segment"),
        (planned(entry=0x100001), "RIP"),
        (planned(segments=(LoadSegment(0, 1, 32, 0x100000, 32),)), "outside of the file"),
        (planned(segments=(LoadSegment(0, 0, 32, 0x100000, 31),)), "outside of the file"),
        (planned(segments=(SEGMENT, LoadSegment(1, 0, 1, SIZE, 1))), "not all in RAM"),
        (planned(writes=((0x10001F, b"x"),)), "overlap"),
        (planned(writes=((0x1000, b"xx"), (0x1001, b"x"))), "overlap"),
        (planned(writes=((SIZE - 1, b"xx"),)), "not all in RAM"),
        (planned(writes=((layout.MIB + 32, bytes(MAX_COST + 1)),)), "writes of"),
    ],
)
def test_unsound_plan_is_found(plan: BootPlan, why: str) -> None:
    found = wrong_in(plan, MEMORY, 32)

    assert why in found
    assert bool(found) == bool(why)
