"""The channel of `--sandbox none`: the models of one device type in this process, behind the same contract.

Requests become the same frames, replies are checked and applied as a device process's are; only the two
system calls between them are missing. So a proxy, a recorder or a test cannot tell the difference, and what
is found without a sandbox holds with one. What is lost is the protection: a model that raises is still
named, one that hangs or corrupts memory is not kept away from anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from kvmbox.board import DeviceSpec, by_type
from kvmbox.remote import protocol
from kvmbox.remote.channel import REPLY_SLICES, Channel, Grants
from kvmbox.remote.protocol import HEADER
from kvmbox.remote.server import DeviceServer, error_frame


class LocalChannel(Channel):
    """A `Channel` without a process. It has no descriptor, nobody waits, nothing hangs on another process."""

    def __init__(
        self,
        device_type: str,
        grants: Sequence[Grants],
        *,
        now: Callable[[], int],
        deadline_changed: Callable[[int, int], None] | None = None,
    ) -> None:
        """As `Channel`, but the models are made here, by the HELLO request."""
        super().__init__(device_type, -1, grants, now=now, deadline_changed=deadline_changed)
        self._server = DeviceServer()

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        """One guest access; returns the reply's value, at most `limit`. Raises DeviceProcessError."""
        with self._lock:
            kind, device, size = word & 0xFF, word >> 8 & 0xFF, word >> 16 & 0xFF
            sequence, now = self._next()
            sent = HEADER.pack(kind, device, size, 0, sequence, now, value, offset, 0)
            frame = self._exchange(sent, sequence)
            if len(frame) == HEADER.size:
                # No effects: the short way, as in `Channel.access`.
                deadline, result = HEADER.unpack(frame)[5:7]
                if frame[0] == kind | protocol.REPLY and result <= limit:
                    if deadline != self.deadline:
                        self._set_deadline(deadline, now)
                    return result  # type: ignore[no-any-return]  # struct's fields are ints
            request = protocol.Request(kind, device, size, sequence, now, value, offset)
            result, _ = self._accept(frame, request, limit)
        if self.settle is not None:
            self.settle()
        return result

    def request(
        self,
        kind: int,
        *,
        device: int = 0,
        value: int = 0,
        offset: int = 0,
        payload: bytes = b"",
        limit: int = 0,
        slices: int = REPLY_SLICES,
    ) -> tuple[int, bytes]:
        """One request of any kind, as `Channel.request`; `slices` bounds nothing: nobody is waited for."""
        with self._lock:
            sequence, now = self._next()
            request = protocol.Request(kind, device, 0, sequence, now, value, offset, payload)
            return self._accept(self._exchange(request.encode(), sequence), request, limit)

    def _next(self) -> tuple[int, int]:
        if self._failure is not None:
            raise self._failure
        self._sequence = self._sequence % protocol.SEQUENCE_MASK + 1
        return self._sequence, self._now()

    def _exchange(self, sent: bytes, sequence: int) -> bytes:
        try:
            frame = self._server.handle(sent)
        except Exception as error:  # noqa: BLE001 - whatever a model raises is its answer, as in `serve`
            frame = error_frame(sequence, error)
        if self.recorder is not None:
            self.recorder(sent, frame)
        return frame


def local_channels(
    board: Sequence[DeviceSpec],
    grants: Mapping[str, Grants],
    *,
    now: Callable[[], int],
    deadline_changed: Callable[[str, int, int], None],
) -> list[tuple[LocalChannel, list[DeviceSpec]]]:
    """A channel per device type of `board`, greeted, with its devices in index order.

    `grants` are by device name. Raises DeviceProcessError where a model refuses its parameters.
    """
    channels = []
    for device_type, devices in by_type(board).items():
        channel = LocalChannel(
            device_type,
            [grants[device.name] for device in devices],
            now=now,
            deadline_changed=partial(deadline_changed, device_type),
        )
        description = protocol.encode_board([(device.model, dict(device.parameters)) for device in devices])
        channel.request(protocol.HELLO, value=protocol.VERSION, payload=description, limit=protocol.VERSION)
        channels.append((channel, devices))
    return channels
