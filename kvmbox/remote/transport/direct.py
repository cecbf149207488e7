"""The transport of `--sandbox none`: the models of one device type in the VMM, called on the thread that
asks.

There is no process and no system call. The lock, the clock, the checks and the grants are the same as for
other transports. The protection is lost: a model that raises is still named in the error, but a model that
hangs or corrupts memory is not contained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from kvmbox.base.compiled import kind
from kvmbox.contract.device_spec import DeviceSpec, by_type
from kvmbox.jail.server import DeviceServer, error_answer, error_frame
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.channel.implementations import channel_kind
from kvmbox.remote.transport.interface import Transport, Waits, Words
from kvmbox.wire.protocol import HEADER, WORDS


class DirectTransport(Transport):
    """Calls the models. Nobody waits, and there is nothing to close."""

    failed = staticmethod(error_answer)

    def __init__(self, server: DeviceServer) -> None:
        self.server = server
        self._answer = server.answer
        self._payload = b""  # of the last reply

    def exchange_words(self, first: int, now: int, value: int, offset_and_length: int) -> Words:
        """See Transport."""
        try:
            reply, deadline, result, steady, payload = self._answer(
                (first, now, value, offset_and_length), _frame_of_header
            )
        except Exception as error:  # noqa: BLE001 - whatever a model raises is its answer, as in a process
            reply, deadline, result, steady, payload = self.failed(first >> 32, error)
        self._payload = payload
        return reply, deadline, result, len(payload) << 32 | steady

    def payload(self, words: Words) -> bytes:
        """See Transport."""
        return self._payload

    def exchange(self, sent: bytes, slices: int | None) -> bytes:
        """See Transport."""
        del slices
        try:
            return self.server.handle(sent)
        except Exception as error:  # noqa: BLE001 - as above
            return error_frame(HEADER.unpack_from(sent)[4], error)


def _frame_of_header(words: Words) -> bytes:
    return WORDS.pack(*words)


class DirectLink:
    """Leads to models in this process; they are made by the HELLO request. `server` is what holds them."""

    def __init__(self, server: Callable[[], DeviceServer] = DeviceServer) -> None:
        self._server = server

    def open(self, device_type: str, waits: Waits) -> DirectTransport:
        """See Opens."""
        del device_type, waits
        return kind(DirectTransport, "direct", "CompiledDirectTransport")(self._server())


def direct_channels(
    board: Sequence[DeviceSpec],
    grants: Mapping[str, Grants],
    *,
    now: Callable[[], int],
    deadline_changed: Callable[[str, int, int], None],
) -> list[tuple[Channel, list[DeviceSpec]]]:
    """A channel per device type of `board`, greeted, with its devices in index order.

    `grants` are by device name. Raises DeviceProcessError where a model refuses its parameters.
    """
    channels = []
    for device_type, devices in by_type(board).items():
        channel = channel_kind()(
            device_type,
            DirectLink(),
            [grants[device.name] for device in devices],
            now=now,
            deadline_changed=partial(deadline_changed, device_type),
        )
        greet(channel, devices)
        channels.append((channel, devices))
    return channels
