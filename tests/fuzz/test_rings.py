"""The fuzzer of rings, briefly: nothing is wrong, and what is made wrong is found."""

from __future__ import annotations

import os
from typing import Final

import pytest

from kvmbox.remote import descriptor_rings
from kvmbox.remote.descriptor_rings import DescriptorRing
from kvmbox.remote.ring import Parts, Ring
from tests.fuzz import descriptors
from tests.fuzz.rings import Fault

pytestmark = pytest.mark.thorough

RINGS: Final = int(os.environ.get("KVMBOX_FUZZ_RINGS", "20000"))
SEED: Final = 20_261_129


class Greedy(Ring):
    """Takes a readable range for a writable one."""

    def take(self, limit: int) -> list[Parts]:
        return [Parts(one.head, one.readable, one.readable + one.writable) for one in super().take(limit)]


def test_hostile_descriptors_reach_nothing_but_what_was_published() -> None:
    made = descriptors.fuzz(RINGS, SEED)
    assert made.chains > RINGS // 3
    assert RINGS // 20 < made.dead < 2 * RINGS


class Unchecked(DescriptorRing):
    """Does not ask whether a buffer is RAM."""

    def _buffer(self, address: int, size: int) -> list[tuple[int, int]]:
        return [(address % 0x8000, size)]


class Generous(DescriptorRing):
    """Lets the device write all of a descriptor's second half."""

    def give_back(self, head: int, written: int) -> None:
        self.memory.write(self.descriptors + 16 * head + 8, written.to_bytes(8, "little"))


@pytest.mark.parametrize("ring", [Unchecked, Generous])
def test_planted_bug_of_descriptors_is_found(
    ring: type[DescriptorRing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptor_rings, "DescriptorRing", ring)
    with pytest.raises(Fault):
        descriptors.fuzz(5_000, SEED)


def test_command_says_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    assert descriptors.main(["--rings", "200", "--seed", "1"]) == 0
    assert "no fault" in capsys.readouterr().out
