"""The fuzzer, briefly: the corpora reach what the table says, and bugs that are planted are found."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from fnmatch import fnmatch, fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from kvmbox.devices.e1000 import vmm as e1000_vmm
from kvmbox.devices.e1000.vmm import DescriptorRing
from kvmbox.devices.uart.model import Uart16550A
from kvmbox.devices.virtio import vmm as virtio_vmm
from kvmbox.devices.virtio.vmm import Virtqueue
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.remote.published.walker import Parts
from tests.fuzz import branches, descriptors, models, rings, run, vmm, windows
from tests.fuzz.engine import Campaign, Found, bounded, pack, try_blindly, unpack
from tests.fuzz.frames import Liar
from tests.fuzz.plants import PLANTS
from tests.fuzz.reasons import REASONS
from tests.fuzz.table import TABLE
from tests.support import model_rig
from tests.support.dice import Dice
from tests.support.judge import ASKS, HEADER, judge

pytestmark = pytest.mark.thorough

SEED: Final = 20_261_129
INPUTS: Final = 3000
"""In how many random inputs a bug is found that shows in one of hundreds."""
LONG: Final = (40, 1500)
"""Bytes of such inputs."""
LEAST: Final = 95
"""How many percent of its branches the corpus of a target takes at least."""


@pytest.mark.parametrize("name", TABLE)
def test_corpus_finds_nothing_and_reaches_what_it_should(name: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz.run", "--target", name, "--alone", "--seconds", "0"]
    done = subprocess.run(command, cwd=run.PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = run.Report(*json.loads(done.stdout))

    assert report.fault == ""
    assert report.executions == len(run.corpus_of(name))
    assert report.share >= LEAST


def test_each_reason_is_of_an_outcome_that_there_is() -> None:
    patterns = {pattern for row in TABLE.values() for pattern in row.files}
    names = [
        one.name
        for path in sorted(run.PACKAGE.rglob("*.py"))
        if any(fnmatch(file := str(path.relative_to(run.PACKAGE)), pattern) for pattern in patterns)
        for one in branches.outcomes_in(file, path.read_text(encoding="utf-8"))
    ]
    wanted = [pattern for found in REASONS.values() for pattern in found]
    assert [pattern for pattern in wanted if not any(fnmatchcase(name, pattern) for name in names)] == []
    listed = [line.strip() for line in run.LIST.read_text().splitlines() if line.startswith(" ")]
    assert [name for name in listed if run.reason_of(name) == run.UNKNOWN] == []
    stale = [name for name in listed if name not in names]
    assert len(stale) < len(listed) // 4, f"{stale}: python -m tests.fuzz.run --seconds 0 --page"


def test_each_corpus_is_that_of_a_target() -> None:
    assert {path.name for path in run.CORPUS.iterdir()} <= set(TABLE)
    assert unpack(pack([b"", b"a", bytes(1000)])) == [b"", b"a", bytes(1000)]


TOY: Final = """
def take(data):
    if data[:1] == b"\\x93" and data[1:2] == b"\\x51":
        for byte in data[2:3]:
            if byte == 0x77 if len(data) > 3 else False:
                match data[3]:
                    case 0xC4:
                        raise ValueError("a planted bug")
"""


def test_branches_lead_to_a_bug_that_chance_would_not_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy_parser.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    blind: Any = import_module("toy_parser")
    try_blindly(lambda dice: blind.take(dice.rest()), INPUTS, SEED)
    sys.modules.pop("toy_parser")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = len(branches.OUTCOMES)

    branches.count_branches(["toy_parser.py"])
    led: Any = import_module("toy_parser")
    campaign = Campaign(lambda dice: led.take(dice.rest()), SEED)
    lead = bounded()(campaign.fuzz)
    with pytest.raises(Found, match="a planted bug") as caught:
        lead(1000, most=100 * INPUTS)

    assert caught.value.data[:4] == b"\x93\x51\x77\xc4"
    texts = {one.what for one in branches.OUTCOMES[before:]}
    assert {"and data[:1] == b'\\x93'", "for byte in data[2:3], else", "match data[3]: no case"} <= texts


@pytest.mark.parametrize("name", PLANTS)
def test_planted_bug_is_found(name: str) -> None:
    plant = PLANTS[name]
    with pytest.raises(Found):  # what is lost of a process shows after many requests
        try_blindly(vmm.stepping(plant.target, plant.parts), INPUTS, SEED, LONG)


class Forgetful(Uart16550A):
    """A UART whose snapshot does not have its scratch register."""

    def snapshot(self) -> bytes:
        scratch = self.read(0, 7, 1)
        self.write(0, 7, 1, 0)
        state = super().snapshot()
        self.write(0, 7, 1, scratch)
        return state


class Greedy(Uart16550A):
    """A UART that gives a byte more than it was asked for."""

    def read(self, now: int, offset: int, size: int) -> int:
        return super().read(now, offset, size) | (offset == 7) << 8


@pytest.mark.parametrize("planted", [Forgetful, Greedy])
def test_bug_planted_in_a_model_is_found(planted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_rig.BUILDERS, "uart_16550a", planted)
    with pytest.raises(Found):
        try_blindly(models.TARGETS["uart"], INPUTS, SEED)


class Careless(Virtqueue):
    """Does not ask whether a chain is RAM."""

    def _chain(self, head: int) -> Parts:
        memory: Any = self.memory
        has, memory.has = memory.has, lambda _ranges: True
        try:
            return super()._chain(head)
        finally:
            memory.has = has


class Confused(Virtqueue):
    """Takes a readable range for a writable one."""

    def take(self, limit: int) -> list[Parts]:
        return [Parts(one.head, one.readable, one.readable + one.writable) for one in super().take(limit)]


class Unchecked(DescriptorRing):
    """Does not ask whether a buffer is RAM."""

    def is_buffer(self, address: int, length: int) -> bool:
        return True


class Generous(DescriptorRing):
    """Lets the device write all of a descriptor's second half."""

    def give_back(self, head: int, written: int) -> None:
        self.memory.write(self.descriptors + 16 * head + 8, written.to_bytes(8, "little"))


@pytest.mark.parametrize("ring", [Unchecked, Generous])
def test_bug_planted_in_the_walker_of_descriptors_is_found(
    ring: type[DescriptorRing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(e1000_vmm, "DescriptorRing", ring)
    with pytest.raises(Found):
        try_blindly(descriptors.TARGETS["descriptors"], INPUTS, SEED, LONG)


@pytest.mark.parametrize("ring", [Careless, Confused])
def test_bug_planted_in_the_walker_is_found(ring: type[Virtqueue], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtio_vmm, "Virtqueue", ring)
    with pytest.raises(Found):
        try_blindly(rings.TARGETS["rings"], 3 * INPUTS, SEED)


@pytest.mark.parametrize("check", ["has", "allows"])
def test_check_of_windows_that_is_left_out_is_found(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    yes: Any = lambda *_place, **_way: True  # noqa: E731
    monkeypatch.setattr(MediumAccess, check, yes)
    with pytest.raises(Found):
        try_blindly(windows.TARGETS["windows"], INPUTS, SEED)


def test_liar_lies_in_every_field_and_is_honest_often() -> None:
    seen: dict[str, set[bool]] = {}
    good = 0
    source = random.Random(SEED)
    for _ in range(5_000):
        liar = Liar(Dice(source.randbytes(200)))
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


def test_command_tells_what_was_reached_and_the_input_of_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--seconds", "0", "--target", "testdev", "--target", "pipe", "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("seed ")
    assert "100.0 %" in lines[1]
