"""The device process: models behind a channel.

`DeviceServer.handle` turns one request frame into one reply frame and does no I/O, so that the same code
serves a jailed process, a thread, and a test. `serve` is the process's loop: it blocks in one place,
reading the next request, and needs nothing but read, write and exit.

The request comes from the VMM, which is trusted, but a frame that makes no sense is still answered with
an error frame and the end: a device process that guesses is worse than one that stops.
"""

from __future__ import annotations

import os

from kvmbox.devices.catalog import build_model
from kvmbox.devices.model import DeviceModel, Effect, SnapshotError
from kvmbox.remote import protocol
from kvmbox.remote.protocol import (
    HEADER,
    MAX_PAYLOAD,
    NO_DEADLINE,
    READ,
    REPLY,
    WRITE,
    FrameError,
    encode_effects,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

MAX_SNAPSHOT: Final = 1 << 20
MAX_ERROR_TEXT: Final = 1024


class DeviceServer:
    """The models of one device process, and the answer to every request."""

    def __init__(self) -> None:
        self.models: list[DeviceModel] = []
        self.running = True
        self._deadlines: list[int] = []
        self._deadline = NO_DEADLINE
        self._outgoing_snapshot = b""
        self._incoming_snapshot = bytearray()

    def handle(self, frame: bytes) -> bytes:
        """The reply to `frame`. Raises what a model raises, and FrameError for a frame that is none."""
        # The hot path: a read or write of one register. Everything else goes through `_handle_rare`.
        kind, device, size, _, sequence, now, value, offset, length = HEADER.unpack_from(frame)
        if kind == READ:
            model = self.models[device]
            value = model.read(now, offset, size)
        elif kind == WRITE:
            model = self.models[device]
            model.write(now, offset, size, value)
            value = 0
        else:
            return self._handle_rare(frame)
        deadline = model.next_deadline()
        deadline = NO_DEADLINE if deadline is None else deadline
        if deadline != self._deadlines[device]:
            self._deadlines[device] = deadline
            self._deadline = min(self._deadlines)
        effects = model.take_effects()
        if not effects and not length:
            return HEADER.pack(kind | REPLY, device, size, 0, sequence, self._deadline, value, 0, 0)
        body = encode_effects([(device, effect) for effect in effects])
        header = HEADER.pack(
            kind | REPLY, device, size, len(effects), sequence, self._deadline, value, 0, len(body)
        )
        return header + body

    def _handle_rare(self, frame: bytes) -> bytes:
        request = protocol.decode_request(frame)
        value, payload = 0, b""
        match request.kind:
            case protocol.HELLO:
                value = self._hello(request)
            case protocol.ADVANCE:
                for model in self.models:
                    model.advance(request.now)
            case protocol.RECEIVE:
                value = self.models[request.device].receive(request.now, request.payload)
            case protocol.RESET:
                for model in self.models:
                    model.reset(request.now)
            case protocol.SNAPSHOT:
                value, payload = self._snapshot_part(request)
            case protocol.RESTORE:
                value = self._restore_part(request)
            case protocol.SHUTDOWN:
                self.running = False
            case _:
                raise FrameError(f"unknown request {request.kind}")
        effects: list[tuple[int, Effect]] = []
        for index, model in enumerate(self.models):
            effects += [(index, effect) for effect in model.take_effects()]
            deadline = model.next_deadline()
            self._deadlines[index] = NO_DEADLINE if deadline is None else deadline
        self._deadline = min(self._deadlines, default=NO_DEADLINE)
        return protocol.encode_reply(request, self._deadline, value, effects, payload)

    def _hello(self, request: protocol.Request) -> int:
        if request.value != protocol.VERSION:
            raise FrameError(f"protocol version {request.value}, this side speaks {protocol.VERSION}")
        if self.models:
            raise FrameError("a second hello")
        self.models = [build_model(name, values) for name, values in protocol.decode_board(request.payload)]
        self._deadlines = [NO_DEADLINE] * len(self.models)
        return protocol.VERSION

    def _snapshot_part(self, request: protocol.Request) -> tuple[int, bytes]:
        # Part 0 takes the snapshot, so that all parts are of one moment.
        if request.offset == 0:
            self._outgoing_snapshot = self.models[request.device].snapshot()
        start = request.offset * MAX_PAYLOAD
        return len(self._outgoing_snapshot), self._outgoing_snapshot[start : start + MAX_PAYLOAD]

    def _restore_part(self, request: protocol.Request) -> int:
        total = request.value
        if request.offset == 0:
            self._incoming_snapshot.clear()
        if total > MAX_SNAPSHOT or request.offset * MAX_PAYLOAD != len(self._incoming_snapshot):
            raise FrameError(f"snapshot part {request.offset} of {total} bytes is out of order")
        self._incoming_snapshot += request.payload
        if len(self._incoming_snapshot) < total:
            return 1
        state = bytes(self._incoming_snapshot)
        self._incoming_snapshot.clear()
        try:
            self.models[request.device].restore(state)
        except SnapshotError:
            return 0
        return 1


def error_frame(sequence: int, error: BaseException) -> bytes:
    """The last frame of a process whose model raised: bounded text, the exception and where it came from."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    place = ""
    if traceback is not None:
        code = traceback.tb_frame.f_code
        place = f" at {code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}"
    text = f"{type(error).__name__}: {error}{place}".encode("utf-8", "replace")[:MAX_ERROR_TEXT]
    return HEADER.pack(protocol.ERROR, 0, 0, 0, sequence, NO_DEADLINE, 0, 0, len(text)) + text


def serve(
    channel: int,
    server: DeviceServer | None = None,
    *,
    read: Callable[[int, int], bytes] = os.read,
    write: Callable[[int, bytes], int] = os.write,
) -> int:
    """Answer requests on descriptor `channel` until SHUTDOWN or end of file; returns the exit status.

    A model's exception sends one bounded error frame and ends the loop with status 1.
    """
    server = server or DeviceServer()
    handle = server.handle
    while server.running:
        frame = read(channel, protocol.MAX_FRAME)
        if not frame:
            return 0
        try:
            reply = handle(frame)
        except Exception as error:  # noqa: BLE001 - whatever a model raises must reach the VMM as a frame
            sequence = HEADER.unpack_from(frame)[4] if len(frame) >= HEADER.size else 0
            write(channel, error_frame(sequence, error))
            return 1
        write(channel, reply)
    return 0
