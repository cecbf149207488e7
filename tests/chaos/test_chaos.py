"""`--on-device-crash restart` under fire: whatever befalls device processes, the guest cannot tell.

KVMBOX_CHAOS_FAULTS faults are spread over the campaigns below (30, or what `make chaos` says);
KVMBOX_CHAOS_SEED repeats the choices of an earlier time, if not the moments.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
from pathlib import Path
from typing import Final

import pytest

from kvmbox.base import layout
from tests.chaos.harness import Chaos, Guest, Result, undisturbed
from tests.support.real_mode import SHUTDOWN, out, say
from tests.support.recordings import ticks_of_the_pit
from tests.support.runs import Images

pytestmark = [pytest.mark.kvm, pytest.mark.thorough]

FAULTS: Final = int(os.environ.get("KVMBOX_CHAOS_FAULTS", "30"))
SEED: Final = int(os.environ.get("KVMBOX_CHAOS_SEED", random.randrange(1 << 30)))

LINES: Final = b"".join(b"line %d: the quick brown fox\r" % number for number in range(60))
GUESTS: Final = {
    "irq64": Guest("irq64"),
    "echo": Guest("echo", typed=LINES + b"\x04", weights={"uart": 8, "debug": 1, "pit": 1, "rtc": 1}),
    "keyboard": Guest(
        "keyboard", ("--keyboard", "console"), typed=LINES + b"\x04", weights={"i8042": 8, "uart": 2}
    ),
    "flood": Guest("flood", ("--append", "30000"), weights={"uart": 8, "debug": 1, "pit": 1, "rtc": 1}),
}
CAMPAIGNS: Final = [
    ("irq64", "socketpair", "filter"),
    ("echo", "pipe", "strict"),
    ("flood", "shm", "filter"),
    ("irq64", "shm", "strict"),
    ("echo", "socketpair", "filter"),
    ("flood", "pipe", "filter"),
    ("irq64", "pipe", "filter"),
    ("echo", "shm", "filter"),
    ("flood", "socketpair", "strict"),
    ("keyboard", "pipe", "filter"),
    ("keyboard", "shm", "strict"),
]
SHORT: Final = 3
"""How many campaigns there are where few faults are wanted."""
PATIENCE: Final = 10
"""How many runs in a row may end before the first fault comes: a guest that only prints is soon done."""


def share(number: int) -> int:
    """How many faults campaign `number` has to see."""
    campaigns = len(CAMPAIGNS) if 10 * len(CAMPAIGNS) <= FAULTS else SHORT
    return FAULTS // campaigns + (number < FAULTS % campaigns) if number < campaigns else 0


def told(result: Result, seed: int) -> str:
    """What a failed test has to say."""
    return f"seed {seed}: status {result.status}, {result.faults}\n{result.messages}"


@pytest.mark.parametrize("number", [number for number in range(len(CAMPAIGNS)) if share(number)])
def test_guest_cannot_tell_that_its_device_processes_are_hit(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, ipc, seccomp = CAMPAIGNS[number]
    guest = GUESTS[name]
    options = ("--ipc", ipc, "--seccomp", seccomp)
    wanted = undisturbed(guest, options, tmp_path)
    assert wanted.status == 0
    faults = runs_without_fault = 0
    durations: list[int] = []
    seed = SEED + 1000 * number
    while faults < share(number):
        seed += 1
        result = Chaos(guest, options, tmp_path, seed=seed, limit=share(number) - faults).run()
        assert (result.status, result.output) == (wanted.status, wanted.output), told(result, seed)
        # Each fault is one restart, whoever finds it; those at the very end may go unnoticed.
        most = len(result.faults) + result.stillborn
        assert len(result.faults) - 2 <= result.restarts <= most, told(result, seed)
        assert result.messages.count(": restarted, ") == result.restarts, told(result, seed)
        runs_without_fault = 0 if result.faults else runs_without_fault + 1
        assert runs_without_fault < PATIENCE, told(result, seed)
        faults += len(result.faults)
        durations += result.numbers["restarts"]["durations"]
    if durations:
        with capsys.disabled():
            sys.stdout.write(
                f"\n  {name} {ipc} {seccomp}, seed {SEED}: {faults} faults, restarts took "
                f"{statistics.median(durations) / 1e6:.1f} ms (median), "
                f"{sorted(durations)[len(durations) * 99 // 100] / 1e6:.1f} ms (99 %)\n"
            )


# --- Interrupts -----------------------------------------------------------------------------------------

NEXT_SECOND: Final = bytes.fromhex("e471 88c3 e471 38d8 74fa")
"""in al,0x71; mov bl,al; poll: in al,0x71; cmp al,bl; jz poll."""
STOP_PIT: Final = out(layout.PIT_PORT + 3, 0x30)
TICKS_OF_1_KHZ: Final = (
    out(layout.PIT_PORT + 3, 0x34) + out(layout.PIT_PORT, 1193 & 0xFF) + out(layout.PIT_PORT, 1193 >> 8)
)


@pytest.mark.parametrize("ipc", ["socketpair", "shm"])
def test_ticks_of_a_second_at_1_khz_are_neither_lost_nor_doubled(tmp_path: Path, ipc: str) -> None:
    # About a second: a busy host may show the guest the seconds of the RTC late. How long it was in the
    # guest's time, the recording knows.
    code = STOP_PIT + out(layout.RTC_INDEX_PORT, 0) + NEXT_SECOND + TICKS_OF_1_KHZ + NEXT_SECOND + STOP_PIT
    image = Images(tmp_path).write(code + say(b"done") + SHUTDOWN)
    guest = Guest(str(image), ("--boot", "real"), weights={"pit": 1, "rtc": 1}, hangs=False)
    recording = tmp_path / "recording"
    options = ("--ipc", ipc, "--record", str(recording))
    result = Chaos(guest, options, tmp_path, seed=SEED, limit=FAULTS).run()
    assert (result.status, result.output) == (0, b"done"), told(result, SEED)
    assert result.restarts >= min(10, FAULTS) - 2, told(result, SEED)
    (line,) = [line for line in result.numbers["interrupts"] if line["line"] == layout.PIT_IRQ]
    # One more edge is OUT going high when mode 2 is set (8254 datasheet: "OUT will initially be high").
    ticks = line["raised"] + line["coalesced"] - 1
    assert ticks == pytest.approx(ticks_of_the_pit(recording, 1193), abs=1), told(result, SEED)
