"""The channel of a device whose process has not started, because the guest has not used the device.

Theory of operation
-------------------
A device that is not used is as it was at power-on. So what it answers to the requests that concern the whole
machine is known: HELLO, RESET and ADVANCE have no effects, and there is no deadline. `NoProcess` answers them
in its place. Any other request starts the process: `NoProcess` has the process made and jailed, connects the
channel to it, sends HELLO and the last RESET with the time that they had, and then the request itself. The
replies to HELLO and RESET must be those that were given before, to the bit.

The time of an ADVANCE need not be sent again, as a model that is told a later time comes to the same state.
Nor is a RESET that another one has followed. `DeviceSpec.on_demand` says which models this is true of.

The channel is connected to another transport in the midst of a request, as it is by a restart. So later
requests cost nothing more, and there is nothing on their way that asks whether the process has started.

A start that fails is a loss of the process: the channel's `Survival` decides what that means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmbox.errors import DeviceProcessError, SandboxError
from kvmbox.remote.channel import Channel
from kvmbox.remote.patience import START_SLICES
from kvmbox.remote.transport import Opens, Transport, Waits, Words
from kvmbox.wire import protocol
from kvmbox.wire.protocol import NO_DEADLINE, WORDS

if TYPE_CHECKING:
    from kvmbox.remote.starts import ProcessStarts

_ANSWERED: Final = (protocol.HELLO, protocol.RESET, protocol.ADVANCE)
"""The requests that do not need the process."""


class NoProcess(Transport):
    """The link and the transport of a channel, until its process is needed."""

    is_started = False

    def __init__(self, starts: ProcessStarts) -> None:
        self._starts = starts
        self._channel: Channel
        self._device_type = ""
        self._hello: list[bytes] = []
        self._reset: list[bytes] = []  # the last one, if there was any

    def open(self, device_type: str, waits: Waits) -> NoProcess:
        """See Opens."""
        del waits
        self._device_type = device_type
        return self

    def attach(self, channel: Channel) -> None:
        """`channel` is the one that has opened this, and is to be connected to the process."""
        self._channel = channel

    @property
    def reset_at(self) -> int | None:
        """The guest time of the last RESET, or None if there was none."""
        return WORDS.unpack_from(self._reset[0])[1] if self._reset else None

    def exchange_words(self, first: int, now: int, value: int, offset_and_length: int) -> Words:
        """See Transport: the guest uses the device."""
        return self._start().exchange_words(first, now, value, offset_and_length)

    def exchange(self, sent: bytes, slices: int | None) -> bytes:
        """See Transport."""
        kind = sent[0]
        if kind not in _ANSWERED:
            return self._start().exchange(sent, slices)
        if kind == protocol.HELLO:
            self._hello.append(sent)
        elif kind == protocol.RESET:
            self._reset = [sent]
        return answer(sent)

    def _start(self) -> Transport:
        """The transport to the process, which is in the state that was told. The channel uses it from now on.

        Raises DeviceProcessError and TransportError.
        """
        channel, survival = self._channel, self._channel.survival
        # The watchdog counts how long a process takes to answer. The start has a limit of its own.
        waiting, channel.waiting = channel.waiting, 0
        survival.being_connected = True
        self._starts.pause_time()
        try:
            channel.connect(self._started())
            for sent in self._hello + self._reset:
                frame = channel.transport.exchange(sent, START_SLICES)
                if frame != answer(sent):
                    raise channel.refuse(sent, frame)
        finally:
            self._starts.resume_time()
            survival.being_connected = False
            channel.waiting = waiting
        return channel.transport

    def _started(self) -> Opens:
        try:
            return self._starts.start(self._device_type)
        except SandboxError as error:
            why = str(error).removeprefix(f"cannot start device process '{self._device_type}': ")
            lost = DeviceProcessError(
                self._device_type, f"did not start when it was needed: {why}", hint=error.hint
            )
            raise self._channel.fail(lost) from error


def answer(sent: bytes) -> bytes:
    """What a device that is as at power-on answers to HELLO, RESET and ADVANCE."""
    first, _, _, _ = WORDS.unpack_from(sent)
    value = protocol.VERSION if sent[0] == protocol.HELLO else 0
    return WORDS.pack(first | protocol.REPLY, NO_DEADLINE, value, 0)
