"""The channel against a peer that lies: a real socket, with replies that lie there before they are due."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from kvmbox.base.errors import DeviceGoneError, DeviceProcessError, ProtocolError
from kvmbox.contract.model import Effect, HostOutput, InputRoom, IrqLine, Reset, Stop
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.deadlines import hung_error, printable
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.transport.interface import Waits, Words
from kvmbox.remote.transport.stream import SocketTransport
from kvmbox.wire import protocol
from kvmbox.wire.effect_kinds import EFFECT
from kvmbox.wire.effects import encode_effects, encode_reply
from kvmbox.wire.protocol import HEADER, MAX_STEADY, NO_DEADLINE, request_word
from tests.support.far_end import FarEnd
from tests.support.halves import Half
from tests.support.links import Opening
from tests.support.log import Log

NOW: Final = 5_000
READ_OF_COM2: Final = request_word(protocol.READ, 1, 1)


class Liar:
    """The far end of a channel: whatever a test puts there, in the VMM's hands before it asks.

    Device 0 was granted two interrupt lines and output; device 1 input room, reset and stop.
    """

    def __init__(
        self,
        *,
        half: Half | None = None,
        now: Callable[[], int] | None = None,
        output: Callable[[bytes], None] | None = None,
        deadline_changed: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> None:
        """`options` are those of the channel. `output` is COM1's, and the default notes it in the log."""
        far = FarEnd()
        self.device_end = far.socket
        self.log = Log()
        self.now = NOW
        self.asked = 0
        rig = self

        half = half or Half()
        socket_transport: Any = half.socket

        class Counting(socket_transport):  # type: ignore[misc]  # one of two
            def exchange_words(self, first: int, now: int, value: int, offset_and_length: int) -> Words:
                rig.asked += 1
                words: Words = super().exchange_words(first, now, value, offset_and_length)
                return words

            def exchange(self, sent: bytes, slices: int | None) -> bytes:
                rig.asked += 1
                frame: bytes = super().exchange(sent, slices)
                return frame

        def reach(device_type: str, waits: Waits) -> SocketTransport:
            self.transport = Counting(far.link, device_type, waits)
            return self.transport

        grants = [
            Grants(
                "COM1",
                irq_lines=[self.log.note("irq 0"), self.log.note("irq 1")],
                output=output or self.log.note("output"),
            ),
            Grants(
                "COM2",
                input_room=self.log.note("room"),
                reset=self.log.note("reset"),
                stop=self.log.note("stop"),
            ),
        ]
        self.channel = half.channel(
            "uart",
            Opening(reach),
            grants,
            now=now or (lambda: self.now),
            deadline_changed=deadline_changed or self.log.note("deadline"),
            slice_ms=1,
            **options,
        )

    def queue(
        self,
        kind: int = protocol.READ | protocol.REPLY,
        *,
        device: int = 1,
        size: int = 1,
        count: int = 0,
        sequence: int = 1,
        deadline: int = NO_DEADLINE,
        value: int = 0,
        zero: int = 0,
        body: bytes = b"",
        length: int | None = None,
    ) -> None:
        """A reply to a byte read of COM2, the first request, but for what the test changes."""
        announced = len(body) if length is None else length
        self.raw(HEADER.pack(kind, device, size, count, sequence, deadline, value, zero, announced) + body)

    def raw(self, frame: bytes) -> None:
        self.device_end.send(frame)

    def read(self, limit: int = 0xFF) -> int:
        """The vCPU thread's byte read at offset 5 of COM2."""
        return self.channel.access(READ_OF_COM2, 5, 0, limit)

    def close(self) -> None:
        self.channel.close()
        self.device_end.close()


@pytest.fixture
def make_liar(half: Half) -> Iterator[Callable[..., Liar]]:
    """A liar with options of the channel that the test wants."""
    peers: list[Liar] = []

    def make(**options: Any) -> Liar:
        peers.append(Liar(half=half, **options))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


@pytest.fixture
def liar(make_liar: Callable[..., Liar]) -> Liar:
    return make_liar()


def check_broken(liar: Liar, error: DeviceProcessError) -> None:
    """The error names the device, and every later request raises the very same one, asking nobody."""
    assert error.device_type == "uart"
    assert str(error).startswith("device process 'uart' ")
    assert "\n" not in str(error)
    assert error.exit_status == 8
    assert liar.channel.failure is error
    assert liar.channel.waiting == 0
    asked = liar.asked
    liar.device_end.close()  # so that nobody waits if it does ask
    with pytest.raises(DeviceProcessError) as again:
        liar.read()
    assert again.value is error
    with pytest.raises(DeviceProcessError) as again:
        liar.channel.request(protocol.ADVANCE, slices=2)
    assert again.value is error
    assert liar.asked == asked


# --- Honest replies --------------------------------------------------------------------------------------


def test_access_sends_the_request_and_gives_the_value(liar: Liar) -> None:
    liar.queue(value=0x60)
    assert liar.read() == 0x60
    sent = protocol.decode_request(liar.device_end.recv(8192))
    assert sent == protocol.Request(protocol.READ, 1, 1, 1, NOW, 0, 5)
    assert liar.log == []


def test_access_waits_until_the_reply_is_read_and_not_while_it_is_used(
    make_liar: Callable[..., Liar],
) -> None:
    # Else a slow disk or a full terminal would look like a process that does not answer.
    peers: list[Liar] = []
    seen: list[tuple[str, int, int]] = []

    def look(what: str) -> None:
        seen.append((what, peers[-1].channel.waiting, peers[-1].channel.waiter))

    for options in ({}, {"record": lambda _sent, _frame: look("record")}):
        liar = make_liar(deadline_changed=lambda _deadline, _now: look("deadline"), **options)
        peers.append(liar)
        liar.queue(deadline=NOW + 1)
        liar.read()
    me = threading.get_ident()
    assert seen == [("deadline", 0, me), ("record", 0, me), ("deadline", 0, me)]


@pytest.mark.parametrize("text", [b"x", b"text"])  # compiled code prints a character by itself
def test_access_does_not_wait_while_it_prints(make_liar: Callable[..., Liar], text: bytes) -> None:
    peers: list[Liar] = []
    seen: list[int] = []
    liar = make_liar(output=lambda _text: seen.append(peers[-1].channel.waiting))
    peers.append(liar)
    liar.queue(device=1, count=1, body=encode_effects([(0, HostOutput(text))]))
    liar.read()
    assert seen == [0]


def test_transact_does_not_wait_while_the_reply_is_used(make_liar: Callable[..., Liar]) -> None:
    peers: list[Liar] = []
    seen: list[int] = []
    liar = make_liar(output=lambda _text: seen.append(peers[-1].channel.waiting))
    peers.append(liar)
    liar.queue(
        protocol.WRITE_RUN | protocol.REPLY,
        count=1,
        size=0,
        body=encode_effects([(0, HostOutput(b"x"))]),
    )
    liar.channel.transact(protocol.WRITE_RUN, 1, 5, b"x")
    assert seen == [0]


def test_access_write_forwards_the_value(liar: Liar) -> None:
    liar.queue(protocol.WRITE | protocol.REPLY, size=4, sequence=1)
    assert liar.channel.access(request_word(protocol.WRITE, 1, 4), 2, 0xDDCCBBAA, 0) == 0
    sent = protocol.decode_request(liar.device_end.recv(8192))
    assert sent == protocol.Request(protocol.WRITE, 1, 4, 1, NOW, 0xDDCCBBAA, 2)


def test_access_value_at_the_limit_passes(liar: Liar) -> None:
    liar.queue(value=0xFF)
    assert liar.read() == 0xFF


def test_access_numbers_requests_and_skips_zero_at_the_end_of_numbers(make_liar: Callable[..., Liar]) -> None:
    liar = make_liar(last_sequence=0xFFFF_FFFE)
    for sequence in (0xFFFF_FFFF, 1, 2):
        liar.queue(sequence=sequence)
        liar.read()
        assert protocol.decode_request(liar.device_end.recv(8192)).sequence == sequence
    liar = make_liar(last_sequence=0xFFFF_FFFF)
    liar.queue(protocol.ADVANCE | protocol.REPLY, device=0, size=0, sequence=1)
    liar.channel.request(protocol.ADVANCE)


def test_request_sends_payload_and_gives_value_and_payload(liar: Liar) -> None:
    liar.queue(protocol.SNAPSHOT | protocol.REPLY, size=0, value=3, body=b"abc")
    assert liar.channel.request(protocol.SNAPSHOT, device=1, payload=b"xy", limit=3) == (3, b"abc")
    sent = protocol.decode_request(liar.device_end.recv(8192))
    assert sent == protocol.Request(protocol.SNAPSHOT, 1, 0, 1, NOW, 0, 0, b"xy")


@pytest.mark.parametrize(
    "kind", [protocol.HELLO, protocol.SNAPSHOT, protocol.RESTORE, protocol.SHUTDOWN, protocol.REPLAY]
)
def test_effect_of_a_request_that_no_device_sees_is_a_break(liar: Liar, kind: int) -> None:
    # COM1 may print: in the reply to a read the very same effect is good.
    body = encode_effects([(0, HostOutput(b"forged"))])
    liar.queue(kind | protocol.REPLY, device=0, size=0, count=1, body=body)
    with pytest.raises(ProtocolError) as caught:
        liar.channel.request(kind, limit=0xFF)
    assert f"an effect in the reply to {protocol.KIND_NAMES[kind]}, which has none" in str(caught.value)
    assert liar.log == []
    check_broken(liar, caught.value)


def test_request_waits_until_the_reply_comes(liar: Liar) -> None:
    def answer() -> None:
        liar.device_end.recv(8192)
        liar.queue(protocol.ADVANCE | protocol.REPLY, device=0, size=0)

    thread = threading.Thread(target=answer)
    thread.start()
    liar.channel.request(protocol.ADVANCE, slices=30_000)
    thread.join()


def test_effects_are_applied_in_their_order(liar: Liar) -> None:
    effects: list[tuple[int, Effect]] = [
        (0, IrqLine(0, 1, 2)),
        (0, HostOutput(b"hi")),
        (0, IrqLine(0, 0)),
        (1, InputRoom(16)),
        (0, IrqLine(1, 1)),
    ]
    liar.queue(count=len(effects), value=7, body=encode_effects(effects))
    assert liar.read() == 7
    assert liar.log == [
        ("irq 0", 1, 2),
        ("output", b"hi"),
        ("irq 0", 0, 0),
        ("room", 16),
        ("irq 1", 1, 0),
    ]


def test_reset_is_valid_in_the_reply_to_a_write_to_that_device(liar: Liar) -> None:
    liar.queue(protocol.WRITE | protocol.REPLY, size=1, count=1, body=encode_effects([(1, Reset())]))
    liar.channel.access(request_word(protocol.WRITE, 1, 1), 3, 0xFE, 0)
    assert liar.log == [("reset",)]


@pytest.mark.parametrize(("kind", "device"), [(protocol.READ, 1), (protocol.WRITE, 0)])
def test_reset_in_another_reply_breaks_the_protocol(liar: Liar, kind: int, device: int) -> None:
    liar.queue(kind | protocol.REPLY, device=device, size=1, count=1, body=encode_effects([(1, Reset())]))
    with pytest.raises(ProtocolError, match="Reset of COM2: not granted"):
        liar.channel.access(request_word(kind, device, 1), 3, 0, 0xFF)
    assert liar.log == []


def test_stop_tells_what_the_vmm_forwarded_not_what_the_device_says(liar: Liar) -> None:
    liar.queue(protocol.WRITE | protocol.REPLY, size=2, count=1, body=encode_effects([(1, Stop())]))
    liar.channel.access(request_word(protocol.WRITE, 1, 2), 3, 0xABCD, 0)
    assert liar.log == [("stop", 3, 2, 0xABCD)]


def test_deadline_is_told_once_per_change_with_the_time_of_the_request(liar: Liar) -> None:
    for sequence, deadline in enumerate((9_000, 9_000, 12_000, NO_DEADLINE), start=1):
        liar.now += 1
        liar.queue(sequence=sequence, deadline=deadline)
        liar.read()
    assert liar.log == [
        ("deadline", 9_000, NOW + 1),
        ("deadline", 12_000, NOW + 3),
        ("deadline", NO_DEADLINE, NOW + 4),
    ]
    assert liar.channel.deadline == NO_DEADLINE


def test_deadline_comes_after_the_effects_of_its_reply(liar: Liar) -> None:
    liar.queue(count=1, deadline=9_000, body=encode_effects([(0, IrqLine(0, 1))]))
    liar.read()
    assert liar.log == [("irq 0", 1, 0), ("deadline", 9_000, NOW)]


def test_overdue_deadline_of_a_sibling_may_stand_in_the_reply_to_an_access(liar: Liar) -> None:
    liar.queue(deadline=NOW - 1)
    liar.read()
    assert liar.log == [("deadline", NOW - 1, NOW)]


def test_advance_deadline_just_after_now_passes(liar: Liar) -> None:
    liar.queue(protocol.ADVANCE | protocol.REPLY, device=0, size=0, deadline=NOW + 1)
    liar.channel.request(protocol.ADVANCE)
    assert liar.channel.deadline == NOW + 1


def test_advance_tells_the_deadline_also_where_it_has_not_changed(liar: Liar) -> None:
    # The timer forgets a deadline when it is due: who was told the time in vain must be told again.
    for sequence in (1, 2):
        liar.queue(protocol.ADVANCE | protocol.REPLY, device=0, size=0, sequence=sequence, deadline=9_000)
        liar.channel.request(protocol.ADVANCE)
    liar.queue(sequence=3, deadline=9_000)
    liar.read()
    assert liar.log == [("deadline", 9_000, NOW)] * 2


def test_output_is_waited_for_after_effects_with_the_lock_free_and_not_without(
    make_liar: Callable[..., Liar],
) -> None:
    waited: list[tuple[int, bytes]] = []

    def wait_for_output() -> None:
        peer.queue(protocol.ADVANCE | protocol.REPLY, device=0, size=0, sequence=3)
        waited.append(peer.channel.request(protocol.ADVANCE, slices=2))

    peer = make_liar(wait_for_output=wait_for_output)
    peer.queue()
    peer.read()
    assert waited == []
    peer.queue(sequence=2, count=1, body=encode_effects([(0, HostOutput(b"x"))]))
    peer.read()
    assert waited == [(0, b"")]


def test_recorder_hears_of_each_request_and_reply_also_of_a_bad_one(make_liar: Callable[..., Liar]) -> None:
    heard: list[tuple[protocol.Request, bytes]] = []
    liar = make_liar(record=lambda sent, frame: heard.append((protocol.decode_request(sent), frame)))
    liar.queue(value=1)
    liar.read()
    liar.raw(b"junk")
    with pytest.raises(ProtocolError):
        liar.channel.request(protocol.ADVANCE)
    assert [request.kind for request, _ in heard] == [protocol.READ, protocol.ADVANCE]
    assert HEADER.unpack(heard[0][1])[6] == 1
    assert heard[1][1] == b"junk"


# --- Lies ------------------------------------------------------------------------------------------------

REPLY: Final = protocol.REPLY
IRQ: Final = encode_effects([(0, IrqLine(0, 1))])

LIES: Final[dict[str, tuple[dict[str, object], str]]] = {
    "a late reply to an earlier request": ({"sequence": 0}, "reply 0 to request 1"),
    "a reply to a request that is to come": ({"sequence": 2}, "reply 2 to request 1"),
    "the sequence number's high bit": ({"sequence": 0x8000_0001}, "reply 2147483649 to request 1"),
    "a reply of another kind": ({"kind": protocol.WRITE | REPLY}, "kind 0x83 to a request of kind 0x2"),
    "a request": ({"kind": protocol.READ}, "kind 0x2 to a request of kind 0x2"),
    "no kind": ({"kind": 0}, "kind 0x0"),
    "another device": ({"device": 0}, "kind 0x82"),
    "a device that is none": ({"device": 200}, "kind 0x82"),
    "another size": ({"size": 2}, "kind 0x82"),
    "a value that is steady for too long": ({"zero": MAX_STEADY + 1}, "a steady value (0x30d44)"),
    "a steady value with an effect": ({"zero": 2, "count": 1, "body": IRQ}, "a steady value (0x2)"),
    "a value above the limit": ({"value": 0x100}, "value 0x100 where at most 0xff can be"),
    "the largest value": ({"value": 2**64 - 1}, "where at most 0xff can be"),
    "a payload that is shorter than announced": ({"length": 5, "body": b"1234"}, "announces a payload of 5"),
    "a payload that is longer than announced": ({"length": 3, "body": b"1234"}, "announces a payload of 3"),
    "a payload that is not announced": ({"length": 0, "body": b"1234"}, "announces a payload of 0"),
    "a payload of 4 GiB": ({"length": 0xFFFF_FFFF}, "announces a payload of 4294967295"),
    "a stray payload": ({"body": b"1234"}, "4 stray bytes after its effects"),
    "stray bytes after an effect": ({"count": 1, "body": IRQ + b"1"}, "1 stray bytes"),
    "an effect that is not counted": ({"count": 0, "body": IRQ}, "8 stray bytes"),
    "effects that are not there": ({"count": 2, "body": IRQ}, "2 effects announced"),
    "an effect cut short": ({"count": 1, "body": IRQ[:-1]}, "1 effects announced"),
    "an unknown effect": ({"count": 1, "body": EFFECT.pack(99, 0, 0, 0, 0)}, "unknown effect 99"),
    "a level of 2": ({"count": 1, "body": EFFECT.pack(1, 0, 0, 2, 0)}, "level 2"),
    "output longer than the frame": ({"count": 1, "body": EFFECT.pack(2, 0, 0, 0, 9) + b"x"}, "output of 9"),
    "an effect of a device that is none": (
        {"count": 1, "body": encode_effects([(2, IrqLine(0, 1))])},
        "an effect of device 2, it has 2",
    ),
    "a pin that is not wired": (
        {"count": 1, "body": encode_effects([(0, IrqLine(2, 1))])},
        "effect IrqLine of COM1: not granted",
    ),
    "an interrupt of a device without": (
        {"count": 1, "body": encode_effects([(1, IrqLine(0, 1))])},
        "effect IrqLine of COM2: not granted",
    ),
    "output of a device without": (
        {"count": 1, "body": encode_effects([(1, HostOutput(b"x"))])},
        "effect HostOutput of COM2: not granted",
    ),
    "input room of a device without": (
        {"count": 1, "body": encode_effects([(0, InputRoom(1))])},
        "effect InputRoom of COM1: not granted",
    ),
    "a reset of a device without": (
        {"count": 1, "body": encode_effects([(0, Reset())])},
        "effect Reset of COM1: not granted",
    ),
    "a stop in the reply to a read": (
        {"count": 1, "body": encode_effects([(1, Stop())])},
        "effect Stop of COM2: not granted",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_access_answered_by_a_lie_breaks_the_channel(liar: Liar, lie: str) -> None:
    changes, message = LIES[lie]
    liar.queue(**changes)  # type: ignore[arg-type]  # one table of keyword arguments of several types
    with pytest.raises(ProtocolError) as caught:
        liar.read()
    assert "broke the protocol: " in str(caught.value)
    assert message in str(caught.value)
    check_broken(liar, caught.value)
    assert liar.log == []


@pytest.mark.parametrize("lie", LIES)
def test_request_answered_by_a_lie_breaks_the_channel(liar: Liar, lie: str) -> None:
    changes, message = LIES[lie]
    liar.queue(**{"size": 0} | changes)  # type: ignore[arg-type]  # as above
    with pytest.raises(ProtocolError) as caught:
        liar.channel.request(protocol.READ, device=1, limit=0xFF)
    assert message in str(caught.value)
    check_broken(liar, caught.value)
    assert liar.log == []


@pytest.mark.parametrize("size", [1, 8, 31])
def test_access_frame_shorter_than_a_header_breaks_the_channel(liar: Liar, size: int) -> None:
    liar.raw(bytes(size))
    with pytest.raises(ProtocolError, match=f"a frame of {size} bytes") as caught:
        liar.read()
    check_broken(liar, caught.value)


@pytest.mark.parametrize("size", [4097, 8000])
def test_access_frame_longer_than_the_largest_breaks_the_channel(liar: Liar, size: int) -> None:
    header = HEADER.pack(protocol.READ | REPLY, 1, 1, 0, 1, NO_DEADLINE, 0, 0, size - 32)
    liar.raw(header + bytes(size - 32))
    with pytest.raises(ProtocolError, match="a frame of 4097 bytes") as caught:
        liar.read()
    check_broken(liar, caught.value)


def test_largest_frame_passes(liar: Liar) -> None:
    data = bytes(4096 - 32 - 8)
    liar.queue(count=1, body=encode_effects([(0, HostOutput(data))]))
    liar.read()
    assert liar.log == [("output", data)]


def test_duplicate_reply_breaks_the_next_request(liar: Liar) -> None:
    liar.queue(value=1)
    liar.queue(value=1)
    assert liar.read() == 1
    with pytest.raises(ProtocolError, match="reply 1 to request 2") as caught:
        liar.channel.request(protocol.ADVANCE)
    check_broken(liar, caught.value)


def test_unsolicited_frame_breaks_the_next_request(liar: Liar) -> None:
    liar.queue(value=1)
    assert liar.read() == 1
    liar.queue(protocol.WRITE | REPLY, sequence=0)
    with pytest.raises(ProtocolError, match="reply 0 to request 2") as caught:
        liar.read()
    check_broken(liar, caught.value)


def test_stop_for_another_device_breaks_the_channel(liar: Liar) -> None:
    liar.queue(protocol.WRITE | REPLY, device=0, count=1, body=encode_effects([(1, Stop())]))
    with pytest.raises(ProtocolError, match="effect Stop of COM2: not granted") as caught:
        liar.channel.access(request_word(protocol.WRITE, 0, 1), 0, 0, 0)
    check_broken(liar, caught.value)
    assert liar.log == []


@pytest.mark.parametrize("kind", [protocol.ADVANCE, protocol.RECEIVE, protocol.RESET])
def test_stop_without_a_write_breaks_the_channel(liar: Liar, kind: int) -> None:
    liar.queue(kind | REPLY, size=0, count=1, body=encode_effects([(1, Stop())]))
    with pytest.raises(ProtocolError, match="effect Stop of COM2: not granted") as caught:
        liar.channel.request(kind, device=1)
    check_broken(liar, caught.value)
    assert liar.log == []


def test_write_answered_with_a_value_breaks_the_channel(liar: Liar) -> None:
    liar.queue(protocol.WRITE | REPLY, value=1)
    with pytest.raises(ProtocolError, match="value 0x1 where at most 0x0 can be") as caught:
        liar.channel.access(request_word(protocol.WRITE, 1, 1), 0, 0, 0)
    check_broken(liar, caught.value)


@pytest.mark.parametrize("deadline", [0, NOW - 1, NOW])
def test_advance_deadline_that_is_not_after_now_breaks_the_channel(liar: Liar, deadline: int) -> None:
    liar.queue(protocol.ADVANCE | REPLY, device=0, size=0, deadline=deadline)
    with pytest.raises(ProtocolError, match=f"deadline {deadline} ns is not after {NOW} ns") as caught:
        liar.channel.request(protocol.ADVANCE)
    check_broken(liar, caught.value)
    assert liar.log == []  # the timer never hears of it


@pytest.mark.parametrize(
    "lie",
    [
        {"count": 2, "body": encode_effects([(0, HostOutput(b"x")), (0, Reset())])},
        {"count": 1, "body": encode_effects([(0, HostOutput(b"x"))]), "deadline": NOW},
    ],
    ids=["an effect that was not granted", "a deadline in the past"],
)
def test_good_effects_of_a_reply_with_a_lie_behind_them_are_not_applied(
    liar: Liar, lie: dict[str, object]
) -> None:
    liar.queue(protocol.ADVANCE | REPLY, **{"device": 0, "size": 0} | lie)  # type: ignore[arg-type]  # as above
    with pytest.raises(ProtocolError) as caught:
        liar.channel.request(protocol.ADVANCE)
    assert liar.log == []
    check_broken(liar, caught.value)


def test_accepted_more_input_than_offered_breaks_the_channel(liar: Liar) -> None:
    liar.queue(protocol.RECEIVE | REPLY, size=0, value=4)
    with pytest.raises(ProtocolError, match="value 0x4 where at most 0x3 can be"):
        liar.channel.request(protocol.RECEIVE, device=1, payload=b"abc", limit=3)


# --- Last words ------------------------------------------------------------------------------------------


def error_frame(text: bytes) -> bytes:
    return HEADER.pack(protocol.ERROR, 0, 0, 0, 1, NO_DEADLINE, 0, 0, len(text)) + text


def test_error_frame_is_told(liar: Liar) -> None:
    liar.raw(error_frame(b"KeyError: 'x' at uart.py:7"))
    with pytest.raises(DeviceProcessError) as caught:
        liar.read()
    assert str(caught.value) == "device process 'uart' failed: KeyError: 'x' at uart.py:7"
    check_broken(liar, caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"\x1b[2J\rkvmbox: all is well\n\x07", r"\x1b[2J\x0dkvmbox: all is well\x0a\x07"),
        ("\u202e\u2028\u0085ä".encode(), r"\x202e\x2028\x85ä"),
        (b"\xff\xfe", "��"),
        (b"\x00\x7f\t", r"\x00\x7f\x09"),
        (b"x" * 4064, "x" * 500),
        (b"", ""),
    ],
)
def test_error_frame_text_cannot_act_on_a_terminal(liar: Liar, text: bytes, shown: str) -> None:
    liar.raw(error_frame(text))
    with pytest.raises(DeviceProcessError) as caught:
        liar.channel.request(protocol.ADVANCE)
    assert str(caught.value) == f"device process 'uart' failed: {shown}"
    assert str(caught.value).isprintable()
    check_broken(liar, caught.value)


def test_error_frame_without_text_behind_a_reply_with_effects_is_told(liar: Liar) -> None:
    liar.queue(device=0, count=1, body=encode_effects([(0, IrqLine(0, 1))]))
    liar.channel.access(request_word(protocol.READ, 0, 1), 0, 0, 0xFF)
    liar.raw(HEADER.pack(protocol.ERROR, 0, 0, 0, 2, NO_DEADLINE, 0, 0, 0))
    with pytest.raises(DeviceProcessError) as caught:
        liar.read()
    assert str(caught.value) == "device process 'uart' failed: "


def test_error_frame_cut_short_is_a_lie(liar: Liar) -> None:
    liar.raw(error_frame(b"text")[:-1])
    with pytest.raises(ProtocolError, match="announces a payload of 4"):
        liar.read()


def test_printable_cuts_before_it_escapes() -> None:
    assert printable(b"\x01\x02abc", limit=2) == r"\x01\x02"


def test_end_of_file_is_a_device_that_is_gone(liar: Liar) -> None:
    liar.device_end.shutdown(socket.SHUT_WR)
    with pytest.raises(DeviceGoneError, match="'uart' is gone: its channel ended") as caught:
        liar.read()
    check_broken(liar, caught.value)


def test_empty_message_breaks_the_protocol(liar: Liar) -> None:
    liar.raw(b"")
    with pytest.raises(ProtocolError, match="an empty frame") as caught:
        liar.channel.request(protocol.ADVANCE)
    check_broken(liar, caught.value)


def test_closed_channel_of_a_process_that_read_everything_is_gone(liar: Liar) -> None:
    liar.device_end.close()
    with pytest.raises(DeviceGoneError) as caught:
        liar.read()
    check_broken(liar, caught.value)


def test_closed_channel_with_an_error_frame_behind_tells_it(liar: Liar) -> None:
    liar.raw(error_frame(b"MemoryError"))
    liar.device_end.close()
    with pytest.raises(DeviceProcessError, match="failed: MemoryError") as caught:
        liar.read()
    check_broken(liar, caught.value)


@pytest.mark.parametrize("way", ["access", "request"])
def test_reset_channel_with_an_error_frame_queued_tells_it(liar: Liar, way: str) -> None:
    # Closed with a message unread, so that the VMM's end is reset; the frame is still in there.
    os.write(liar.transport.requests, b"never read")
    liar.raw(error_frame(b"MemoryError"))
    liar.device_end.close()
    with pytest.raises(DeviceProcessError, match="failed: MemoryError") as caught:
        liar.read() if way == "access" else liar.channel.request(protocol.ADVANCE)
    check_broken(liar, caught.value)


@pytest.mark.parametrize("way", ["access", "request"])
def test_reset_channel_with_nothing_queued_is_gone(liar: Liar, way: str) -> None:
    os.write(liar.transport.requests, b"never read")
    liar.device_end.close()
    with pytest.raises(DeviceGoneError) as caught:
        liar.read() if way == "access" else liar.channel.request(protocol.ADVANCE)
    check_broken(liar, caught.value)


def test_access_of_a_process_that_dies_with_the_request_unread_tells_its_last_words(liar: Liar) -> None:
    def die() -> None:
        poll = select.poll()
        poll.register(liar.device_end, select.POLLIN)
        poll.poll()
        liar.raw(error_frame(b"last words"))
        liar.device_end.close()

    thread = threading.Thread(target=die)
    thread.start()
    with pytest.raises(DeviceProcessError, match="failed: last words"):
        liar.read()
    thread.join()


# --- Waiting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda channel: channel.request(protocol.ADVANCE, slices=2),
        lambda channel: channel.request(protocol.ADVANCE),
    ],
    ids=["few slices", "as many as in a run"],
)
def test_request_without_a_reply_is_hung_after_its_slices(
    liar: Liar, ask: Callable[[Channel], object]
) -> None:
    with pytest.raises(DeviceProcessError, match="'uart' is hung: no reply within") as caught:
        ask(liar.channel)
    assert not isinstance(caught.value, DeviceGoneError)
    liar.queue(protocol.ADVANCE | REPLY, device=0, size=0)  # the late reply changes nothing
    check_broken(liar, caught.value)


class Blocked:
    """A thread that sits in `access` and waits for a reply that does not come."""

    def __init__(self, liar: Liar) -> None:
        self._liar = liar
        self.error: DeviceProcessError | None = None
        self.value: int | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.request = protocol.decode_request(liar.device_end.recv(8192))

    def _run(self) -> None:
        try:
            self.value = self._liar.read()
        except DeviceProcessError as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_access_tells_the_watchdog_which_request_is_open(make_liar: Callable[..., Liar]) -> None:
    liar = make_liar(last_sequence=41)
    blocked = Blocked(liar)
    assert blocked.request.sequence == liar.channel.waiting == 42
    liar.queue(sequence=42, value=9)
    blocked.join()
    assert blocked.value == 9
    assert liar.channel.waiting == 0


def test_request_behind_a_hung_access_gives_up_and_the_access_ends_with_the_same_error(liar: Liar) -> None:
    blocked = Blocked(liar)
    with pytest.raises(DeviceProcessError, match="is hung") as caught:
        liar.channel.request(protocol.ADVANCE, slices=2)
    liar.device_end.close()  # what killing the process does
    blocked.join()
    assert blocked.error is caught.value
    assert liar.channel.failure is caught.value


def test_failure_that_the_watchdog_found_wins_over_the_end_of_file_that_follows(liar: Liar) -> None:
    blocked = Blocked(liar)
    hung = liar.channel.fail(hung_error("uart"))
    liar.device_end.close()
    blocked.join()
    assert blocked.error is hung
    assert liar.channel.fail(DeviceProcessError("uart", "later")) is hung


def test_threads_share_a_channel_without_time_going_backwards(make_liar: Callable[..., Liar]) -> None:
    """`now` is stamped under the lock: requests on the wire carry growing numbers and times."""
    ticks = iter(range(1, 10_000))
    liar = make_liar(now=lambda: next(ticks))
    rounds = 150
    seen: list[protocol.Request] = []

    def serve() -> None:
        for _ in range(2 * rounds):
            request = protocol.decode_request(liar.device_end.recv(8192))
            seen.append(request)
            liar.raw(encode_reply(request, None, 0, []))

    def ask() -> None:
        for _ in range(rounds):
            liar.channel.request(protocol.ADVANCE, slices=30_000)

    server, other = threading.Thread(target=serve), threading.Thread(target=ask)
    server.start()
    other.start()
    for _ in range(rounds):
        liar.read()
    other.join()
    server.join()
    assert [request.sequence for request in seen] == list(range(1, 2 * rounds + 1))
    assert [request.now for request in seen] == list(range(1, 2 * rounds + 1))


def test_close_is_idempotent_and_ends_the_device_side(liar: Liar) -> None:
    liar.channel.close()
    liar.channel.close()
    assert liar.device_end.recv(10) == b""
