"""Processes that are taken over, briefly: nothing is wrong, and what is made wrong is found."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest

from kvmbox.devices.virtio import vmm
from kvmbox.run.display import vga_window_switch
from tests.fuzz.taken_over import TARGETS, fuzz, main
from tests.fuzz.targets import Fault
from tests.fuzz.test_fuzz import Confused
from tests.support.halves import Half, built_halves

pytestmark = pytest.mark.thorough

FRAMES: Final = int(os.environ.get("KVMBOX_FUZZ_TAKEN_OVER", "4000"))
SEED: Final = 20_261_129
HALVES: Final = built_halves()


@pytest.mark.parametrize("half", HALVES, ids=["pure", "compiled"][: len(HALVES)])
@pytest.mark.parametrize("name", TARGETS)
def test_process_that_is_taken_over_gets_nothing_that_is_not_published(name: str, half: Half) -> None:
    target, cases = fuzz(name, FRAMES, SEED, half)
    # Processes that are all refused at once test nothing.
    assert target.refused < cases * 0.7


@pytest.mark.parametrize("name", ["disk", "net"])
def test_walker_that_takes_readable_for_writable_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmm, "Virtqueue", Confused)
    with pytest.raises(Fault, match="a byte was stored"):
        fuzz(name, FRAMES, SEED, Half())


def test_window_that_is_not_checked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    anything: Any = lambda effect: effect  # noqa: E731
    monkeypatch.setattr(vga_window_switch, "allowed", anything)
    with pytest.raises(Fault):
        fuzz("vga", FRAMES, SEED, Half())


def test_command_says_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--frames", "200", "--seed", "1"]) == 0
    assert capsys.readouterr().out.count("no fault") == len(TARGETS)
