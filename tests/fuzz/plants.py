"""Bugs planted on purpose, one at a time: a fuzzer that does not find them would not find others either.

What is fuzzed is made of `Parts`. A plant is a target and one part of it with a bug: a check that is not made
(because a wrapper hides from it what it would find), or state that is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from kvmbox.base.errors import UnknownExitError
from kvmbox.contract.model import Effect, IrqLine, Stop
from kvmbox.jail.server import DeviceServer
from kvmbox.parts.restart.recovery import Recovery
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.effect_calls import Application
from kvmbox.remote.channel.journal import Entry, Journal
from kvmbox.remote.transport.interface import NO_HEADER, Transport, Words, frame_of
from kvmbox.run.vcpu.coalesced_ring import CoalescedRing
from kvmbox.wire import protocol
from kvmbox.wire.effects import decode_effects
from kvmbox.wire.protocol import HEADER, MAX_PAYLOAD, WORDS, FrameError
from tests.support.judge import DEVICES, WITHOUT_EFFECTS

ANY_VALUE: Final = (1 << 64) - 1
KIND, COUNT, SEQUENCE, DEADLINE, LENGTH = 0, 3, 4, 5, 8  # places in the header

Mend = Callable[[bytes, bytes], bytes]
"""What the channel gets to see, of the request and the reply."""


class Parts(NamedTuple):
    """What targets are made of."""

    transport: Callable[[Transport], Transport] = lambda transport: transport
    channel: type[Channel] = Channel
    recovery: type[Recovery] = Recovery
    server: type[DeviceServer] = DeviceServer
    ring: type[CoalescedRing] = CoalescedRing


class Plant(NamedTuple):
    """A bug in one of the parts; `target` is where it shows."""

    target: str
    parts: Parts


SOUND: Final = Parts()


# --- Checks of the channel that see nothing ---------------------------------------------------------------


class Mended(Transport):
    """A transport whose replies are mended before they are checked. Its fast path is never taken."""

    def __init__(self, inner: Transport, mend: Mend) -> None:
        self._inner = inner
        self._mend = mend
        self._frame = b""

    def exchange_words(self, first: int, now: int, value: int, offset_and_length: int) -> Words:
        words = self._inner.exchange_words(first, now, value, offset_and_length)
        frame = frame_of(words, self._inner.payload(words))
        self._frame = self._mended(WORDS.pack(first, now, value, offset_and_length), frame)
        return NO_HEADER

    def payload(self, words: Words) -> bytes:
        assert words is NO_HEADER
        return self._frame

    def exchange(self, sent: bytes, slices: int | None) -> bytes:
        return self._mended(sent, self._inner.exchange(sent, slices))

    def _mended(self, sent: bytes, frame: bytes) -> bytes:
        return self._mend(sent, frame) if len(frame) >= HEADER.size else frame

    def close(self) -> None:
        self._inner.close()


class NoRest(Transport):
    """A transport whose fast path hides what is no part of a reply without effects."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    def exchange_words(self, first: int, now: int, value: int, offset_and_length: int) -> Words:
        reply, deadline, result, rest = self._inner.exchange_words(first, now, value, offset_and_length)
        return reply, deadline, result, rest >> 32 << 32

    def payload(self, words: Words) -> bytes:
        return self._inner.payload(words)

    def exchange(self, sent: bytes, slices: int | None) -> bytes:
        return self._inner.exchange(sent, slices)

    def close(self) -> None:
        self._inner.close()


def changed(frame: bytes, **fields: int) -> bytes:
    """The frame with fields of its header changed: KIND=..., DEADLINE=..."""
    header: list[int] = list(HEADER.unpack_from(frame))
    for name, value in fields.items():
        header[globals()[name]] = value
    return HEADER.pack(*header) + frame[HEADER.size :]


def same_sequence(sent: bytes, frame: bytes) -> bytes:
    return changed(frame, SEQUENCE=HEADER.unpack_from(sent)[SEQUENCE])


def same_request(sent: bytes, frame: bytes) -> bytes:
    return bytes([sent[KIND] | protocol.REPLY]) + sent[1:COUNT] + frame[COUNT:]


def true_length(_sent: bytes, frame: bytes) -> bytes:
    return changed(frame, LENGTH=len(frame) - HEADER.size)


def without_stray_bytes(sent: bytes, frame: bytes) -> bytes:
    with suppress(FrameError):
        _, stray = decode_effects(frame[COUNT], frame[HEADER.size :])
        if stray and sent[KIND] != protocol.SNAPSHOT:
            return true_length(sent, frame[: -len(stray)])
    return frame


def without_forbidden_effects(sent: bytes, frame: bytes) -> bytes:
    with suppress(FrameError):
        _, payload = decode_effects(frame[COUNT], frame[HEADER.size :])
        if sent[KIND] in WITHOUT_EFFECTS:
            return true_length(sent, changed(frame[: HEADER.size] + payload, COUNT=0))
    return frame


def deadline_to_come(sent: bytes, frame: bytes) -> bytes:
    now = HEADER.unpack_from(sent)[DEADLINE]
    overdue = sent[KIND] == protocol.ADVANCE and HEADER.unpack_from(frame)[DEADLINE] == now
    return changed(frame, DEADLINE=now + 1) if overdue else frame


def no_error(_sent: bytes, frame: bytes) -> bytes:
    return changed(frame, KIND=0x55) if frame[KIND] == protocol.ERROR else frame


def mending(mend: Mend) -> Parts:
    """A channel that sees mended replies."""
    return Parts(transport=lambda transport: Mended(transport, mend))


class AnyValueOfAccesses(Channel):
    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        return super().access(word, offset, value, ANY_VALUE)


class AnyValueOfRequests(Channel):
    def request(self, kind: int, **options: Any) -> tuple[int, bytes]:
        return super().request(kind, **options | {"limit": ANY_VALUE})


class AnyDevice(Channel):
    def check_effect(self, index: int, effect: Effect, sent: bytes) -> Application:
        return super().check_effect(index % DEVICES, effect, sent)


class AnyPin(Channel):
    def check_effect(self, index: int, effect: Effect, sent: bytes) -> Application:
        if isinstance(effect, IrqLine):
            effect = IrqLine(effect.pin % 2, effect.level, effect.coalesced)
        return super().check_effect(index, effect, sent)


class StopAtAnyTime(Channel):
    def check_effect(self, index: int, effect: Effect, sent: bytes) -> Application:
        if isinstance(effect, Stop):
            sent = bytes([protocol.WRITE]) + sent[1:]
        return super().check_effect(index, effect, sent)


# --- State that is lost -----------------------------------------------------------------------------------


class JournalWithAGap(Journal):
    def note(self, entry: Entry) -> None:
        super().note(entry)
        del self[6:7]


class Forgetful(Recovery):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.journal = JournalWithAGap(self.journal.limit)


class KeepsOne(Recovery):
    def journal_is_full(self) -> None:
        last = self.journal[-1]
        super().journal_is_full()
        self.journal.append(last)


class BornAnew(DeviceServer):
    """It says that it has restored itself, and has not."""

    def handle(self, frame: bytes) -> bytes:
        if frame[KIND] != protocol.RESTORE:
            return super().handle(frame)
        first, _, _, _ = WORDS.unpack_from(frame)
        return WORDS.pack(first | protocol.REPLY, self.deadline, 1, 0)


class TakesTooMuch(DeviceServer):
    """It takes a snapshot that is too long, and uses its beginning."""

    def handle(self, frame: bytes) -> bytes:
        request = protocol.decode_request(frame)
        if request.kind != protocol.RESTORE:
            return super().handle(frame)
        size = len(self.models[request.device].snapshot())
        request.payload = request.payload[: max(0, size - request.offset * MAX_PAYLOAD)]
        request.value = min(request.value, size)
        return super().handle(request.encode())


class SeesNoNonsense(CoalescedRing):
    """A ring that cannot be is an empty one."""

    def drain(self) -> None:
        with suppress(UnknownExitError):
            super().drain()

    def flush(self) -> bool:
        with suppress(UnknownExitError):
            return super().flush()
        return False


PLANTS: Final = {
    "value": Plant("stream", Parts(channel=AnyValueOfRequests)),
    "value of an access": Plant("stream", Parts(channel=AnyValueOfAccesses)),
    "fast rest": Plant("shared", Parts(transport=NoRest)),
    "sequence": Plant("stream", mending(same_sequence)),
    "header": Plant("shared", mending(same_request)),
    "length": Plant("stream", mending(true_length)),
    "stray bytes": Plant("stream", mending(without_stray_bytes)),
    "effects of a hello": Plant("stream", mending(without_forbidden_effects)),
    "deadline": Plant("stream", mending(deadline_to_come)),
    "foreign device": Plant("shared", Parts(channel=AnyDevice)),
    "foreign pin": Plant("stream", Parts(channel=AnyPin)),
    "foreign stop": Plant("stream", Parts(channel=StopAtAnyTime)),
    "blame": Plant("stream", mending(no_error)),
    "journal": Plant("lives", Parts(recovery=Forgetful)),
    "checkpoint": Plant("lives", Parts(recovery=KeepsOne)),
    "restore": Plant("lives", Parts(server=BornAnew)),
    "ring": Plant("coalesced", Parts(ring=SeesNoNonsense)),
    "snapshot size": Plant("model-snapshots", Parts(server=TakesTooMuch)),
}
