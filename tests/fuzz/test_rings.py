"""The fuzzer of rings, briefly: nothing is wrong, and what is made wrong is found."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest

from kvmbox.remote import queues
from kvmbox.remote.ring import Parts, Ring
from tests.fuzz.rings import Fault, fuzz, main

pytestmark = pytest.mark.thorough

RINGS: Final = int(os.environ.get("KVMBOX_FUZZ_RINGS", "20000"))
SEED: Final = 20_261_129


def test_hostile_rings_reach_nothing_but_what_was_published() -> None:
    made = fuzz(RINGS, SEED)
    # Rings that are all refused, or all good, test nothing.
    assert made.chains > RINGS // 3
    assert RINGS // 20 < made.dead < 2 * RINGS  # a dead one is asked up to three times


class Careless(Ring):
    """Does not ask whether a chain is RAM."""

    def _chain(self, head: int) -> Parts:
        memory: Any = self.memory
        has, memory.has = memory.has, lambda _ranges: True
        try:
            return super()._chain(head)
        finally:
            memory.has = has


class Greedy(Ring):
    """Takes a readable range for a writable one."""

    def take(self, limit: int) -> list[Parts]:
        return [Parts(one.head, one.readable, one.readable + one.writable) for one in super().take(limit)]


@pytest.mark.parametrize("ring", [Careless, Greedy])
def test_planted_bug_is_found(ring: type[Ring], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "Ring", ring)
    with pytest.raises(Fault):
        fuzz(5_000, SEED)


def test_command_says_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rings", "200", "--seed", "1"]) == 0
    assert "no fault" in capsys.readouterr().out
