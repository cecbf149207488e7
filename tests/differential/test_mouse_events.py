"""What the mouse sends when it is moved and its buttons are pressed: the model beside QEMU.

QEMU is that of test_differential.py: its mouse is used over QMP, and its bytes are read over qtest. It adds
up what happens between two packets, and tells no more than 127 counts: so each event is read, and is small.
It tells 2:1 scaling in its status, and scales nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from kvmbox.devices.ps2.model import I8042
from kvmbox.host.console import mouse_events
from tests.differential.qemu_input import Qemu, drained, running
from tests.differential.runner import find_qemu

needs_qemu = pytest.mark.skipif(
    find_qemu() is None,
    reason="no QEMU with -accel qtest: install qemu-system-xen, or name one in KVMBOX_QEMU",
)
pytestmark = [pytest.mark.thorough, needs_qemu]

EVENTS: Final = 200
KNOCKS: Final = {"plain": (), "wheel": (200, 100, 80), "explorer": (200, 200, 80)}
BUTTONS: Final = {"left": "left", "right": "right", "middle": "middle", "back": "side", "forward": "extra"}


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    with running(tmp_path) as started:
        yield started


class Both:
    """The same for both; what is read is compared."""

    def __init__(self, qemu: Qemu) -> None:
        self.qemu = qemu
        self.model = I8042()
        self.held: set[str] = set()

    def ask(self, *values: int) -> None:
        for value in values:
            for offset, byte in ((1, 0xD4), (0, value)):
                self.qemu.write(offset, byte)
                self.model.write(0, offset, 1, byte)
            self.compare(f"command {value:#x}")

    def do(self, action: str) -> None:
        word, *rest = action.split()
        if word == "move":
            moved = [
                ("rel", {"axis": axis, "value": int(count)}) for axis, count in zip("xy", rest, strict=True)
            ]
            self.qemu.send(*moved)
        elif word == "wheel":
            wheel = "wheel-up" if int(rest[0]) > 0 else "wheel-down"
            self.qemu.send(("btn", {"down": True, "button": wheel}))
        else:
            self.qemu.send(("btn", {"down": word == "press", "button": BUTTONS[rest[0]]}))
        events = mouse_events.acted(action)
        assert self.model.receive(0, events) == len(events)

    def compare(self, what: str) -> None:
        assert (what, drained(self.model).hex()) == (what, self.qemu.drain().hex())


@pytest.mark.parametrize("mode", [0xEA, 0xF0], ids=["stream", "remote"])
@pytest.mark.parametrize("knock", KNOCKS)
def test_random_events_send_what_they_send_in_qemu(qemu: Qemu, knock: str, mode: int) -> None:
    rng = random.Random(knock)
    both = Both(qemu)
    both.ask(0xFF, *(byte for rate in KNOCKS[knock] for byte in (0xF3, rate)), mode, 0xF4)
    for _ in range(EVENTS):
        button = rng.choice([*BUTTONS] if knock == "explorer" else ["left", "right", "middle"])
        changes = "release" if button in both.held else "press"
        action = rng.choice(
            (
                f"move {rng.randint(-127, 127)} {rng.randint(-127, 127)}",
                f"{changes} {button}",
                f"wheel {rng.choice((-1, 1))}" if knock != "plain" else "move 0 1",
            )
        )
        if action.startswith(changes):
            both.held ^= {button}
        both.do(action)
        both.compare(action)
        if mode == 0xF0 or not rng.randrange(8):
            both.ask(0xEB)
