"""Announced rises: a line is raised before its process is asked, and what that reports is no second edge."""

from __future__ import annotations

from typing import Any

import pytest

from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.contract.model import NO_RISE, IrqLine, RisesAt
from kvmbox.host.interrupt_lines import InterruptRouter
from kvmbox.jail.server import DeviceServer
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.transport.direct import DirectLink
from kvmbox.wire import protocol
from kvmbox.wire.protocol import WRITE, request_word
from tests.support.fake_model import FakeModel
from tests.support.halves import Half

NOW = 5_000


class Timer(FakeModel):
    """Notes in `log` when it is told the time."""

    log: list[object]

    def advance(self, now: int) -> None:
        self.log.append("told")

    reset = advance


class Rig:
    """A fake timer with one line, whose changes are in `log` beside what the model is told."""

    def __init__(self, half: Half) -> None:
        self.log: list[object] = []
        self.model = Timer()
        self.model.log = self.log
        self.router = InterruptRouter()
        self.router.attach(lambda _gsi, level: self.log.append(level))
        self.source = self.router.source(0)
        self.now = NOW
        self.channel = half.channel(
            "timer",
            DirectLink(lambda: DeviceServer(build=lambda _name, _parameters: self.model)),
            [Grants("timer", irq_lines=[self.source], rises={0: self.source})],
            now=lambda: self.now,
        )
        greet(self.channel, [DeviceSpec("timer", "timer", "fake")])

    def announce(self, at: int) -> None:
        self.model.effects = [RisesAt(0, at)]
        word = request_word(WRITE, 0, 1)
        self.channel.access(word, 0, 0, 0)


@pytest.fixture
def rig(half: Half) -> Rig:
    return Rig(half)


def test_line_is_raised_before_the_process_is_told_and_its_report_is_no_second_edge(rig: Rig) -> None:
    rig.announce(NOW + 10)
    rig.now = NOW + 10
    rig.model.effects = [IrqLine(0, 1, 2), RisesAt(0, NOW + 99)]
    rig.channel.request(protocol.ADVANCE)
    assert rig.log == [1, "told"]
    assert rig.source.at == NOW + 99
    assert (rig.router.lines[0].raised, rig.router.lines[0].coalesced) == (1, 2)


@pytest.mark.parametrize("kind", [protocol.ADVANCE, protocol.RESET])
def test_rise_that_was_announced_and_is_not_reported_is_taken_back(rig: Rig, kind: int) -> None:
    rig.announce(NOW + 10)
    rig.now = NOW + 10
    rig.source.raise_ahead()
    rig.channel.request(kind)
    assert rig.log == [1, "told", 0]


def test_process_that_is_told_an_earlier_time_raises_nothing(rig: Rig) -> None:
    rig.announce(NOW + 10)
    rig.now = NOW + 9
    rig.channel.request(protocol.ADVANCE)
    assert rig.log == ["told"]
    assert rig.source.at == NOW + 10


def test_announcement_that_a_later_reply_takes_back_raises_nothing(rig: Rig) -> None:
    rig.announce(NOW + 10)
    rig.announce(NO_RISE)
    rig.now = NOW + 10
    rig.channel.request(protocol.ADVANCE)
    assert rig.log == ["told"]


def test_process_that_is_lost_announces_nothing_more(rig: Rig) -> None:
    rig.announce(NOW + 10)
    rig.channel.disconnect()
    assert rig.source.at == NO_RISE


def test_writes_to_a_process_that_is_lost_may_not_be_late(half: Half) -> None:
    said: list[int] = []
    channel = half.channel(
        "uart",
        DirectLink(),
        [Grants("uart", late_writes={0: said.append})],
        now=lambda: NOW,
        deadline_changed=lambda _deadline, _now: None,
    )
    channel.disconnect()
    assert said == [0]


def test_source_gets_the_lock_of_its_channel(half: Half) -> None:
    rise: Any = FakeRise()
    channel = half.channel(
        "timer",
        DirectLink(),
        [Grants("timer", irq_lines=[lambda _level, _coalesced: None], rises={0: rise})],
        now=lambda: NOW,
    )
    with rise.lock:
        assert not rise.lock.acquire(blocking=False)
    channel.close()


class FakeRise:
    """A rise that keeps the lock that it is given."""

    at = NO_RISE
    slack = 0
    lock: Any = None

    def guarded_by(self, lock: Any) -> None:
        self.lock = lock


class SlackRise(FakeRise):
    """A rise whose line a thread raises."""

    slack = 300_000

    def announce(self, at: int) -> None:
        self.at = at

    def settle(self) -> None:
        """Nothing was raised."""


@pytest.mark.parametrize(
    ("deadline", "rises_at", "told_at"),
    [
        (NOW + 800, NOW + 800, NOW + 900),  # an eighth of the time later
        (NOW + 700_000, NOW + 700_000, NOW + 900_000),  # all but half a millisecond later
        (NOW + 80_000_000, NOW + 80_000_000, NOW + 80_300_000),  # as much as the rise allows
        (NOW + 800, NOW + 900, NOW + 800),  # for something else than the rise
        (NOW + 800, NO_RISE, NOW + 800),
        (NOW - 1, NOW - 1, NOW - 1),
    ],
)
def test_process_whose_line_is_raised_without_it_is_told_a_little_later(
    half: Half, deadline: int, rises_at: int, told_at: int
) -> None:
    model: Any = Timer()
    rise: Any = SlackRise()
    model.log = []
    told: list[int] = []
    channel = half.channel(
        "timer",
        DirectLink(lambda: DeviceServer(build=lambda _name, _parameters: model)),
        [Grants("timer", irq_lines=[lambda _level, _coalesced: None], rises={0: rise})],
        now=lambda: NOW,
        deadline_changed=lambda at, _now: told.append(at),
    )
    greet(channel, [DeviceSpec("timer", "timer", "fake")])
    told.clear()
    model.deadline, model.effects = deadline, [RisesAt(0, rises_at)]
    word = request_word(WRITE, 0, 1)
    channel.access(word, 0, 0, 0)
    assert told == [told_at]
    assert channel.deadline == deadline
