"""The fuzzer of windows, briefly: nothing is wrong, and what is made wrong is found."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest

from kvmbox.remote.medium import MediumAccess
from tests.fuzz.windows import Fault, fuzz, main

pytestmark = pytest.mark.thorough

FRAMES: Final = int(os.environ.get("KVMBOX_FUZZ_WINDOWS", "20000"))
SEED: Final = 20_261_129


def test_hostile_disk_moves_nothing_but_what_it_was_granted() -> None:
    made = fuzz(FRAMES, SEED)
    # Processes that are all refused at once, or that move nothing, test nothing.
    assert FRAMES // 200 < made.refused < FRAMES // 2
    assert made.moved > FRAMES // 10


@pytest.mark.parametrize("check", ["has", "allows"])
def test_planted_bug_is_found(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    yes: Any = lambda *_place, **_way: True  # noqa: E731
    monkeypatch.setattr(MediumAccess, check, yes)
    with pytest.raises(Fault):
        fuzz(5_000, SEED)


def test_command_says_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--frames", "200", "--seed", "1"]) == 0
    assert "no fault" in capsys.readouterr().out
