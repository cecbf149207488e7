"""Requests that effects ask for: under the same lock, in order, bounded, and each one like any other."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from kvmbox.base.errors import DeviceGoneError, DeviceProcessError, ProtocolError
from kvmbox.contract.device_spec import Resource
from kvmbox.contract.model import Effect, InputRoom, IrqLine, Transfer
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.effect_calls import MAX_FOLLOW_UPS, Application, FollowUp
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.journal import Journal
from kvmbox.remote.process.crash_policy import Survival
from kvmbox.remote.published.guest_memory import TransferAccess
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_reply
from kvmbox.wire.protocol import Request, request_word
from tests.support.far_end import FarEnd
from tests.support.log import Log

NOW = 5_000
READ = request_word(protocol.READ, 1, 1)
WRITE = request_word(protocol.WRITE, 0, 1)
QUESTION = InputRoom
"""The effect that stands for a question here; its count is how many follow-ups it asks for."""


class Asking(Channel):
    """A channel where a device may ask: with RECEIVE as the follow-up."""

    def check_effect(self, index: int, effect: Effect, sent: bytes) -> Application:
        if isinstance(effect, QUESTION):
            return self._asked, (index, effect.count), effect.count
        return super().check_effect(index, effect, sent)

    @staticmethod
    def _asked(device: int, count: int) -> list[FollowUp]:
        return [FollowUp(protocol.RECEIVE, device, 0, number, b"answer") for number in range(count)]


class Rescue(Survival):
    """Answers with an interrupt; keeps a journal."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = Journal()
        self.rescued: list[bytes] = []

    def rescue(self, error: DeviceProcessError, sent: bytes) -> bytes:
        self.rescued.append(sent)
        return encode_reply(protocol.decode_request(sent), None, 0, [(0, IrqLine(0, 1))])


class Rig:
    """The channel, and the far end with its replies in the VMM's hands before it asks."""

    def __init__(self) -> None:
        self.far = FarEnd()
        self.log = Log()
        disk = TransferAccess(Resource("disk", 1 << 20), lambda *_order: True)
        grants = [
            Grants("DISK", irq_lines=[self.log.note("irq")], resources=[disk]),
            Grants("NET", irq_lines=[self.log.note("irq")]),
        ]
        self.recorded: list[int] = []
        self.survival = Rescue()
        self.channel = Asking(
            "dma",
            self.far.link,
            grants,
            now=lambda: NOW,
            record=lambda sent, _frame: self.recorded.append(sent[0]),
            survival=self.survival,
        )

    def reply(self, kind: int, *effects: tuple[int, Effect], device: int = 0, value: int = 0) -> None:
        """What the process will answer to the next request."""
        size = 1 if kind in (protocol.READ, protocol.WRITE) else 0
        self.far.reply(kind, *effects, device=device, size=size, value=value)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.channel.close()
    rig.far.close()


def answer(sequence: int, device: int, number: int = 0) -> Request:
    return Request(protocol.RECEIVE, device, 0, sequence, NOW, 0, number, b"answer")


def test_access_gives_its_own_value_and_its_follow_ups_come_behind_it(rig: Rig) -> None:
    rig.reply(protocol.READ, (1, QUESTION(2)), device=1, value=0x41)
    rig.reply(protocol.RECEIVE, (1, IrqLine(0, 1)), device=1)
    rig.reply(protocol.RECEIVE, (1, IrqLine(0, 0)), device=1)
    assert rig.channel.access(READ, 3, 0, 0xFF) == 0x41
    assert rig.far.asked() == [Request(protocol.READ, 1, 1, 1, NOW, 0, 3), answer(2, 1, 0), answer(3, 1, 1)]
    assert rig.log == [("irq", 1, 0), ("irq", 0, 0)]
    assert rig.channel.waiting == 0


@pytest.mark.parametrize("way", ["access", "request", "transact"])
def test_follow_ups_of_a_follow_up_come_behind_those_that_were_asked_for_before(rig: Rig, way: str) -> None:
    kind = {"access": protocol.WRITE, "request": protocol.ADVANCE, "transact": protocol.WRITE_RUN}[way]
    rig.reply(kind, (0, QUESTION(1)), (1, QUESTION(1)))
    rig.reply(protocol.RECEIVE, (0, QUESTION(1)))
    rig.reply(protocol.RECEIVE, device=1)
    rig.reply(protocol.RECEIVE)
    if way == "access":
        rig.channel.access(WRITE, 0, 5, 0)
    elif way == "request":
        rig.channel.request(kind)
    else:
        rig.channel.transact(kind, 0, 0, b"run")
    assert rig.far.asked()[1:] == [answer(2, 0), answer(3, 1), answer(4, 0)]


def test_each_follow_up_is_journaled_and_recorded_after_the_reply_that_asked_for_it(rig: Rig) -> None:
    rig.reply(protocol.WRITE, (0, QUESTION(1)))
    rig.reply(protocol.RECEIVE)
    rig.channel.access(WRITE, 0, 5, 0)
    assert rig.recorded == [protocol.WRITE, protocol.RECEIVE]
    assert [words[0] & 0xFF for words, _, _, _ in rig.survival.journal or ()] == rig.recorded


def test_follow_up_that_a_process_does_not_live_through_is_rescued_by_itself(rig: Rig) -> None:
    rig.survival.rescues = True
    rig.reply(protocol.READ, (1, QUESTION(1)), device=1, value=7)
    rig.far.socket.shutdown(socket.SHUT_WR)
    assert rig.channel.access(READ, 3, 0, 0xFF) == 7
    assert [protocol.decode_request(sent) for sent in rig.survival.rescued] == [answer(2, 1)]
    assert rig.log == [("irq", 1, 0)]


def test_follow_up_that_fails_fails_the_access_and_leaves_none_for_the_next_one(rig: Rig) -> None:
    rig.reply(protocol.READ, (1, QUESTION(2)), device=1, value=7)
    rig.far.socket.shutdown(socket.SHUT_WR)
    with pytest.raises(DeviceGoneError):
        rig.channel.access(READ, 3, 0, 0xFF)
    asked = rig.far.asked()
    rig.channel.forget_failure()
    with pytest.raises(DeviceGoneError):
        rig.channel.request(protocol.ADVANCE)
    assert [request.kind for request in asked + rig.far.asked()] == [
        protocol.READ,
        protocol.RECEIVE,
        protocol.ADVANCE,
    ]


def test_as_many_follow_ups_as_there_may_be_are_sent_for_each_request(rig: Rig) -> None:
    for _ in range(2):
        rig.reply(protocol.WRITE, (0, QUESTION(MAX_FOLLOW_UPS)))
        for _ in range(MAX_FOLLOW_UPS):
            rig.reply(protocol.RECEIVE)
        rig.channel.access(WRITE, 0, 5, 0)
    assert len(rig.far.asked()) == 2 * (1 + MAX_FOLLOW_UPS)


def test_reply_that_asks_for_more_breaks_the_protocol_and_nothing_of_it_is_applied(rig: Rig) -> None:
    rig.reply(protocol.WRITE, (1, IrqLine(0, 1)), (1, QUESTION(MAX_FOLLOW_UPS + 1)))
    with pytest.raises(ProtocolError, match="NET asks for more than 20 follow-ups of one request"):
        rig.channel.access(WRITE, 0, 5, 0)
    assert rig.log == []
    assert len(rig.far.asked()) == 1


def test_process_that_asks_again_in_each_follow_up_is_stopped_by_the_same_bound(rig: Rig) -> None:
    rig.reply(protocol.WRITE, (0, QUESTION(1)))
    for _ in range(MAX_FOLLOW_UPS):
        rig.reply(protocol.RECEIVE, (0, QUESTION(1)))
    with pytest.raises(ProtocolError, match="DISK asks for more than 20"):
        rig.channel.access(WRITE, 0, 5, 0)
    assert len(rig.far.asked()) == 1 + MAX_FOLLOW_UPS


def test_transfers_that_are_told_of_later_are_no_follow_ups_of_later_requests(rig: Rig) -> None:
    for number in range(3 * MAX_FOLLOW_UPS):
        rig.reply(protocol.WRITE, (0, Transfer(number, 0, 0, ((0, 512),), True)))
        rig.channel.access(WRITE, 0, 5, 0)
    assert len(rig.far.asked()) == 3 * MAX_FOLLOW_UPS


def test_transfers_of_one_request_are_bounded_even_if_they_are_told_of_later(rig: Rig) -> None:
    transfers = [(0, Transfer(number, 0, 0, ((0, 512),), True)) for number in range(MAX_FOLLOW_UPS + 1)]
    rig.reply(protocol.WRITE, *transfers)
    with pytest.raises(ProtocolError, match="DISK asks for more than 20 follow-ups of one request"):
        rig.channel.access(WRITE, 0, 5, 0)
