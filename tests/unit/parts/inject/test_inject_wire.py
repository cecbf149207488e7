"""A wire with faults: which of its frames are lost, damaged, or late."""

from __future__ import annotations

from typing import cast

import pytest

from kvmbox.parts.inject.device_faults import Count, DeviceFaults
from kvmbox.parts.inject.network_faults import MOST_LATE, FaultyWire
from kvmbox.parts.inject.spec import parse
from kvmbox.parts.net.port import Port
from kvmbox.parts.net.wires import Wire

FRAME = bytes(60)


class FakeWire:
    lost = 0

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.coming: list[bytes] = []
        self.unsent = b""
        self.is_away = False

    def send(self, frame: bytes) -> bool:
        if self.is_away:
            raise ConnectionError
        self.sent.append(frame)
        return True

    def flush(self) -> bool:
        return True

    def receive(self) -> list[bytes]:
        frames, self.coming = self.coming, []
        return frames


class Rig:
    def __init__(self, text: str) -> None:
        self.inner = FakeWire()
        self.now = 0
        self.faults = DeviceFaults("net0", lambda: 0)
        spec = parse(f"net0:{text}")
        for wanted in spec.wanted:
            assert self.faults.add(spec, wanted)
        self.wire = FaultyWire(self.inner, self.faults, lambda: self.now)


def test_lost_frames_are_lost_in_both_directions() -> None:
    rig = Rig("loss=1")
    rig.inner.coming = [FRAME]

    assert rig.wire.send(FRAME)
    assert rig.wire.receive() == []
    assert rig.inner.sent == []
    assert rig.faults.counts == [Count("net0", "loss", 2, 2)]


def test_damaged_frame_has_one_other_bit() -> None:
    rig = Rig("corrupt=1")

    rig.wire.send(FRAME)
    (sent,) = rig.inner.sent
    assert len(sent) == len(FRAME)
    assert sum(byte.bit_count() for byte in sent) == 1


def test_empty_frame_has_nothing_to_damage() -> None:
    rig = Rig("corrupt=1")

    rig.inner.coming = [b""]
    assert rig.wire.receive() == [b""]


def test_late_frame_for_a_peer_that_is_away_is_lost_and_counted() -> None:
    rig = Rig("delay=1")
    port = Port("net0", cast(Wire, rig.wire))
    rig.inner.is_away = True
    port.write(0, FRAME)
    rig.now = 1_000_000

    port.move()
    assert port.facts()["lost_sent"] == 1
    assert port.due is None


def test_late_frame_waits_for_room_in_the_guest_and_wakes_nobody() -> None:
    rig = Rig("delay=1")
    port = Port("net0", cast(Wire, rig.wire))
    rig.inner.coming = [FRAME]
    port.room(1)
    port.move()

    assert port.due == 1_000_000
    port.has_room = False
    assert port.due is None


@pytest.mark.parametrize("seed", [1, 2])
def test_same_frames_are_lost_in_each_run(seed: int) -> None:
    found = []
    for _ in range(2):
        rig = Rig(f"loss=0.5,seed={seed}")
        for number in range(50):
            rig.wire.send(bytes((number,)) * 60)
        found.append(rig.inner.sent)
    assert found[0] == found[1]
    assert 0 < len(found[0]) < 50


def test_late_frames_come_in_their_order_when_their_time_has_come() -> None:
    rig = Rig("delay=20")
    rig.wire.send(FRAME)
    rig.now = 5_000_000
    rig.inner.coming = [FRAME]

    assert rig.wire.receive() == []
    assert rig.wire.flush()
    assert rig.inner.sent == []
    assert (rig.wire.leaves_at, rig.wire.comes_at) == (20_000_000, 25_000_000)
    rig.now = 20_000_000
    rig.wire.flush()
    assert rig.inner.sent == [FRAME]
    assert rig.wire.receive() == []
    assert (rig.wire.leaves_at, rig.wire.comes_at) == (None, 25_000_000)
    rig.now = 25_000_000
    assert rig.wire.receive() == [FRAME]


def test_late_frames_are_bounded() -> None:
    rig = Rig("delay=1")
    for _ in range(MOST_LATE + 10):
        rig.wire.send(FRAME)

    rig.now = 1 << 40
    rig.wire.flush()
    assert len(rig.inner.sent) == MOST_LATE
