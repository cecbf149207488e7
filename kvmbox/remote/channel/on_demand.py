"""The channel of a device whose process has not started, because the guest has not used the device.

Theory of operation
-------------------
A device that is not used is as it was at power-on. So what it answers to the requests that concern the whole
machine is known: HELLO, RESET and ADVANCE have no effects, and there is no deadline, unless a pin of it runs
by itself (`free_running`). `NoProcess` answers them in its place, and what else is known: the writes of
firmware, and those that stop the run, so that no process starts at the end of each. Any other request starts
the process: `NoProcess` has the process made and jailed, connects the channel to it, sends HELLO and what
came from the last RESET on, with the time that it had, and then the request itself. The replies must be those
that an unused device gives to the same requests, to the bit.

Two things are not sent again: what came before a RESET, and an ADVANCE that another one follows, as a model
that is told a later time comes to the same state. `DeviceSpec.on_demand` says which models this is true of.

The channel is connected to another transport in the midst of a request, as it is by a restart. So later
requests cost nothing more, and there is nothing on their way that asks whether the process has started.

A start that fails is a loss of the process: the channel's `Survival` decides what that means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.contract.model import NANOSECONDS, Stop
from kvmbox.remote.transport.interface import NO_HEADER, Transport, Waits, Words
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_reply
from kvmbox.wire.protocol import NO_DEADLINE, WORDS

if TYPE_CHECKING:
    from kvmbox.contract.device_spec import DeviceSpec
    from kvmbox.remote.channel.connection import Channel
    from kvmbox.remote.channel.free_running import FreeRunningPin
    from kvmbox.remote.process.late_starts import ProcessStarts

_ANSWERED: Final = (protocol.HELLO, protocol.RESET, protocol.ADVANCE)
"""The requests that do not need the process."""


class NoProcess(Transport):
    """The link and the transport of a channel, until its process is needed."""

    is_started = False

    def __init__(self, starts: ProcessStarts, devices: Sequence[DeviceSpec] = ()) -> None:
        self._starts = starts
        self._devices = devices
        self._unused = Unused(devices)
        self._channel: Channel
        self.told: list[bytes] = []
        """What the process will be told at first: HELLO, and what came from the last RESET on."""
        self._reply = b""

    def open(self, device_type: str, waits: Waits) -> NoProcess:
        """See Opens."""
        del device_type, waits
        return self

    def attach(self, channel: Channel) -> None:
        """`channel` is the one that has opened this, and is to be connected to the process."""
        self._channel = channel

    @property
    def stands_still(self) -> bool:
        """Whether nothing but the last RESET makes a difference to the devices."""
        return self._unused.runs is None and all(one[0] in _ANSWERED for one in self.told)

    @property
    def reset_at(self) -> int | None:
        """The guest time of the last RESET, or None if there was none."""
        return next((WORDS.unpack_from(one)[1] for one in self.told if one[0] == protocol.RESET), None)

    def exchange_words(self, first: int, now: int, value: int, offset_and_length: int) -> Words:
        """See Transport: the guest uses the device."""
        sent = WORDS.pack(first, now, value, offset_and_length)
        if not self._unused.knows(sent):
            return self._start().exchange_words(first, now, value, offset_and_length)
        self._reply = self.exchange(sent, None)
        return NO_HEADER

    def payload(self, words: Words) -> bytes:
        """See Transport."""
        return self._reply

    def exchange(self, sent: bytes, slices: int | None) -> bytes:
        """See Transport."""
        kind = sent[0]
        if kind not in _ANSWERED and not self._unused.knows(sent):
            return self._start().exchange(sent, slices)
        if kind == protocol.RESET:
            self.told = [one for one in self.told if one[0] == protocol.HELLO]
        elif kind == protocol.HELLO and not WORDS.unpack_from(sent)[3] & 0xFFFF_FFFF:
            self.told = []  # the first part: it is greeted anew
        elif kind == protocol.ADVANCE == self.told[-1][0]:
            self.told.pop()
        self.told.append(sent)
        return self._unused.answer(sent)

    def _start(self) -> Transport:
        """The transport to the process, which is in the state that was told. The channel uses it from now on.

        Raises DeviceProcessError and TransportError.
        """
        from kvmbox.remote.channel.first_use import start

        start(self._channel, self._starts, self.told, Unused(self._devices).answer)
        return self._channel.transport


class Unused:
    """What the devices of one process that nobody uses answer."""

    def __init__(self, devices: Sequence[DeviceSpec]) -> None:
        self.runs = next((one.runs for one in devices if one.runs is not None), None)
        """The pin of one of them that runs by itself, if there is such a pin."""
        self._devices = devices
        self._written = b""  # of the word that stops: one device of a process has a word at most
        self._is_over = False
        self._pin: FreeRunningPin | None = None

    def knows(self, sent: bytes) -> bool:
        """Whether `answer` knows the answer to a request that is none of `_ANSWERED`."""
        if sent[0] == protocol.WRITE_RUN:
            return self.runs is not None and self._running().knows(sent)
        return self._written_with(sent) is not None

    def answer(self, sent: bytes) -> bytes:
        """The reply."""
        first, _, _, _ = WORDS.unpack_from(sent)
        if sent[0] == protocol.RESET:
            self._written, self._is_over = b"", False
        elif sent[0] == protocol.WRITE:
            self._written = self._written_with(sent) or b""
            self._is_over = self._written == self._devices[sent[1]].stopped_by
            asked = protocol.decode_request(sent)
            return encode_reply(asked, None, 0, [(asked.device, Stop())] if self._is_over else [])
        is_hello = sent[0] == protocol.HELLO
        if self.runs is not None and not is_hello:
            return self._running().answer(sent)
        deadline = NO_DEADLINE if self.runs is None else -(-self.runs.high * NANOSECONDS // self.runs.hertz)
        return WORDS.pack(first | protocol.REPLY, deadline, protocol.VERSION if is_hello else 0, 0)

    def _written_with(self, sent: bytes) -> bytes | None:
        """All of the word so far, if a request is a write that stops the run, or comes nearer to that."""
        stops = self._devices[sent[1]].stopped_by if sent[0] == protocol.WRITE and not self._is_over else None
        if not stops:
            return stops
        word = self._written + bytes((WORDS.unpack_from(sent)[2] & 0xFF,))
        return word if sent[2] == 1 and stops.startswith(word) else None

    def _running(self) -> FreeRunningPin:
        if self._pin is None:
            from kvmbox.remote.channel.free_running import FreeRunningPin

            self._pin = FreeRunningPin(self._devices)
        return self._pin
