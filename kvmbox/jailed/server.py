"""The device process: models behind a channel.

`DeviceServer.handle` turns one request frame into one reply frame and does no I/O, so that the same code
serves a jailed process, a thread, and a test. `serve` is the process's loop: it blocks in one place,
reading the next request, and needs nothing but read, write and exit. (`page_server` is the loop for shared
memory.)

Where the time goes between read and write: one dictionary leads from the request's first word (kind,
device and size) straight to the bound methods of the model, the header is four words, unpacked and packed
by one Struct, and a reply without effects is those four words and nothing else. What is left is the model.

The request comes from the VMM, which is trusted, but a frame that makes no sense is still answered with
an error frame and the end: a device process that guesses is worse than one that stops.
"""

from __future__ import annotations

import binascii
import os

from kvmbox.devices.catalog import build_model
from kvmbox.devices.model import DeviceModel, Effect, HostOutput, SnapshotError
from kvmbox.wire import protocol
from kvmbox.wire.protocol import (
    HEADER,
    INDEXED_READ,
    MAX_PAYLOAD,
    NO_DEADLINE,
    READ,
    REPLY,
    ROUTE_MASK,
    WORDS,
    WRITE,
    FrameError,
    encode_effects_of,
    request_word,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

MAX_SNAPSHOT: Final = 1 << 20
MAX_ERROR_TEXT: Final = 1024

ACCESS_SIZES: Final = (1, 2, 4, 8)
DEVICE_OF_ROUTE: Final = 4
_NO_ACCESS: Final = (0, 0, 0, 0)


class DeviceServer:
    """The models of one device process, and the answer to every request."""

    def __init__(self) -> None:
        self.models: list[DeviceModel] = []
        self.running = True
        self.routes: dict[int, tuple[Any, ...]] = {}
        """By the first word of an access, without its sequence number: what `answer` needs to know of it."""
        self._deadlines: list[int | None] = []
        self.deadline = NO_DEADLINE
        """When the process must next be told the time, in ns of guest time."""
        self.effects: list[Effect] = []
        """What the last `perform` caused."""
        self._outgoing_snapshot = b""
        self._incoming_snapshot = bytearray()

    def handle(self, frame: bytes) -> bytes:
        """The reply to `frame`. Raises what a model raises, and FrameError for a frame that is none."""
        if len(frame) == HEADER.size:
            first, now, value, place = WORDS.unpack(frame)
            route = self.routes.get(first & ROUTE_MASK)
            if route is not None:
                return self.answer(route, first, now, value, place)
        return self._handle_rare(frame)

    def answer(self, route: tuple[Any, ...], first: int, now: int, value: int, place: int) -> bytes:
        """The reply to an access whose header's four words these are. Raises what a model raises."""
        value = self.perform(route, now, value, place)
        if self.effects:
            return self.reply_with_effects(first, route[DEVICE_OF_ROUTE], value)
        return WORDS.pack(first | REPLY, self.deadline, value, 0)

    def reply_with_effects(self, first: int, device: int, value: int) -> bytes:
        """The reply to an access of `device` that has just been performed, and had effects."""
        body = encode_effects_of(device, self.effects)
        word = first | REPLY | len(self.effects) << 24
        return WORDS.pack(word, self.deadline, value, len(body) << 32) + body

    def perform(self, route: tuple[Any, ...], now: int, value: int, place: int) -> int:
        """Make an access; returns what a read gives, 0 for a write. Raises what a model raises.

        What it caused is in `effects`, the process's next deadline in `deadline`.
        """
        kind, read, write, size, device, next_deadline, take_effects = route
        if kind == READ:
            value = read(now, place, size)
        elif kind == WRITE:
            write(now, place, size, value)
            value = 0
        else:
            write(now, value >> 32, 1, value & 0xFF)
            value = read(now, place, size)
        deadline = next_deadline()
        if deadline != self._deadlines[device]:
            self._deadlines[device] = deadline
            self.deadline = self._earliest()
        self.effects = take_effects()
        return value

    def _earliest(self) -> int:
        return min((deadline for deadline in self._deadlines if deadline is not None), default=NO_DEADLINE)

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
            case protocol.WRITE_RUN:
                write = self.models[request.device].write
                for byte in request.payload:
                    write(request.now, request.offset, 1, byte)
            case protocol.REPLAY:
                value = self._replay(request.payload)
            case protocol.RESET:
                for model in self.models:
                    model.reset(request.now)
            case protocol.SNAPSHOT:
                value, payload = self._snapshot_part(request)
            case protocol.RESTORE:
                value = self._restore_part(request)
            case protocol.SHUTDOWN:
                self.running = False
            case protocol.READ | protocol.WRITE | protocol.INDEXED_READ:
                raise FrameError(f"an access of {request.size} bytes to device {request.device}")
            case _:
                raise FrameError(f"unknown request {request.kind}")
        effects: list[tuple[int, Effect]] = []
        for index, model in enumerate(self.models):
            effects += [(index, effect) for effect in joined(model.take_effects())]
            self._deadlines[index] = model.next_deadline()
        self.deadline = self._earliest()
        return protocol.encode_reply(request, self.deadline, value, effects, payload)

    def _hello(self, request: protocol.Request) -> int:
        if request.value != protocol.VERSION:
            raise FrameError(f"protocol version {request.value}, this side speaks {protocol.VERSION}")
        if self.models:
            raise FrameError("a second hello")
        self.models = [build_model(name, values) for name, values in protocol.decode_board(request.payload)]
        self._deadlines = [None] * len(self.models)
        for device, model in enumerate(self.models):
            for kind in (READ, WRITE, INDEXED_READ):
                for size in ACCESS_SIZES:
                    self.routes[request_word(kind, device, size)] = (
                        kind,
                        model.read,
                        model.write,
                        size,
                        device,
                        model.next_deadline,
                        model.take_effects,
                    )
        return protocol.VERSION

    def _replay(self, frames: bytes) -> int:
        """Live through requests that another process has answered; returns the CRC-32 of the replies."""
        checksum = start = 0
        while start < len(frames):
            end = start + HEADER.size + HEADER.unpack_from(frames, start)[-1]
            checksum = binascii.crc32(self.handle(frames[start:end]), checksum)
            start = end
        return checksum

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


def joined(effects: list[Effect]) -> list[Effect]:
    """The same effects, neighbouring host output made one: a run of writes is one piece of output."""
    merged: list[Effect] = []
    pieces: list[bytes] = []
    for effect in effects:
        if type(effect) is HostOutput:
            pieces.append(effect.data)
            continue
        if pieces:
            merged.append(HostOutput(b"".join(pieces)))
            pieces = []
        merged.append(effect)
    if pieces:
        merged.append(HostOutput(b"".join(pieces)))
    return merged


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
    replies: int | None = None,
    *,
    server: DeviceServer | None = None,
    read: Callable[[int, int], bytes] = os.read,
    write: Callable[[int, bytes], int] = os.write,
) -> int:
    """Answer requests until SHUTDOWN or end of file; returns the exit status.

    They come from descriptor `channel`; replies go there too, or to `replies` if that is given. A model's
    exception sends one bounded error frame and ends the loop with status 1.
    """
    server = server or DeviceServer()
    out = channel if replies is None else replies
    routes, perform, handle = server.routes, server.perform, server.handle
    unpack, pack, header_size, frame_size = WORDS.unpack, WORDS.pack, HEADER.size, protocol.MAX_FRAME
    while server.running:
        frame = read(channel, frame_size)
        if not frame:
            return 0
        try:
            # What nearly every request is, without a call between reading and the model: see `handle`.
            first, now, value, place = unpack(frame) if len(frame) == header_size else _NO_ACCESS
            route = routes.get(first & ROUTE_MASK)
            if route is None:
                reply = handle(frame)
            else:
                value = perform(route, now, value, place)
                if server.effects:
                    reply = server.reply_with_effects(first, route[DEVICE_OF_ROUTE], value)
                else:
                    reply = pack(first | REPLY, server.deadline, value, 0)
        except Exception as error:  # noqa: BLE001 - whatever a model raises must reach the VMM as a frame
            sequence = HEADER.unpack_from(frame)[4] if len(frame) >= HEADER.size else 0
            write(out, error_frame(sequence, error))
            return 1
        write(out, reply)
    return 0
