"""The fuzzer, briefly: nothing is wrong, and what is made wrong is found."""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.fuzz.frames import Liar
from tests.fuzz.plants import PLANTS, Plant
from tests.fuzz.run import CHUNK, TARGETS, deal, fuzz, main
from tests.fuzz.targets import Fault
from tests.support.judge import ASKS, HEADER, judge

pytestmark = pytest.mark.thorough

FRAMES: Final = int(os.environ.get("KVMBOX_FUZZ_FRAMES", "60000"))
SEED: Final = 20_261_125
ENOUGH: Final = 20_000
"""In how many frames a bug is found that shows in one of hundreds."""


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_frames_do_no_harm(target: str) -> None:
    frames, accepted = fuzz(target, deal(FRAMES, list(TARGETS))[target], SEED)
    assert 0.9 * deal(FRAMES, list(TARGETS))[target] <= frames
    # A liar that is never believed tests nothing behind the first check.
    assert 0.1 * frames < accepted < frames


def fuzz_chunks(plant: Plant) -> None:
    for seed in range(SEED, SEED + ENOUGH // CHUNK):
        fuzz(plant.target, CHUNK, seed, plant.parts)


@pytest.mark.parametrize("name", PLANTS)
def test_planted_bug_is_found(name: str) -> None:
    with pytest.raises(Fault):
        fuzz_chunks(PLANTS[name])


def test_same_seed_gives_the_same_fault() -> None:
    told = []
    for _ in range(2):
        with pytest.raises(Fault) as caught:
            fuzz("stream", ENOUGH, SEED, PLANTS["value"].parts)
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_command_reports_a_fault_with_its_seed_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--frames", "20000", "--seed", "7", "--target", "stream"]
    assert main([*arguments, "--plant", "value"]) == 1
    output = capsys.readouterr().out
    assert "FAULT: stream, seed " in output
    assert main(arguments) == 0
    assert "no fault" in capsys.readouterr().out


def test_liar_lies_in_every_field_and_is_honest_often() -> None:
    liar = Liar(SEED)
    seen: dict[str, set[bool]] = {}
    good = 0
    for _ in range(5_000):
        ask = liar.ask()
        frame = liar.reply(ask, 5)
        good += not judge(ask, 5, frame).error
        if len(frame) >= HEADER.size:
            fields = HEADER.unpack_from(frame)
            honest = {"kind": ask.kind | 0x80, "device": ask.device, "size": ask.size}
            honest |= {"sequence": 5, "zero": 0, "length": len(frame) - HEADER.size}
            for name, place in zip(honest, (0, 1, 2, 4, 7, 8), strict=True):
                seen.setdefault(name, set()).add(fields[place] == honest[name])
    assert 1_000 < good < 3_000
    assert all(found == {True, False} for found in seen.values())
    assert len({ask.kind for ask in ASKS}) == 10
