"""The models of a device process, and the answer to every request.

`DeviceServer` turns one request into one reply and does no I/O, so that the same code serves a jailed process
(`serving_loop`), the VMM itself (`--sandbox none`), and a test.

Where the time goes: one dictionary leads from the request's first word (kind, device and size) straight to
the bound methods of the model, the header is four words, and a reply without effects is those four words and
nothing else. What is left is the model.

The request comes from the VMM, which is trusted, but a frame that makes no sense is still answered with
an error frame and the end: a device process that guesses is worse than one that stops.
"""

from __future__ import annotations

import binascii

import kvmbox.wire.bulk_effect_table
import kvmbox.wire.pci_effect_table  # noqa: F401 - both add the effects that some models have
from kvmbox.contract.catalog import MODELS, build_model
from kvmbox.contract.model import DONE, DeviceModel, Effect, HostOutput, SnapshotError
from kvmbox.jail.own_model import build_from_source
from kvmbox.wire import access_blocks, protocol
from kvmbox.wire.chains import decode_chains
from kvmbox.wire.effects import MAX_EFFECTS, encode_effects_of, encode_reply
from kvmbox.wire.protocol import (
    BEHIND_LATE_WRITES,
    CHAINS,
    COMPLETED_READ,
    HEADER,
    INDEXED_READ,
    MAX_PAYLOAD,
    NO_DEADLINE,
    OVER_LATE_WRITES,
    READ,
    READ_WIDE,
    REPLY,
    ROUTE_MASK,
    WORDS,
    WRITE,
    WRITE_LIST,
    WRITE_RUN,
    WRITE_WIDE,
    FrameError,
    Parts,
    request_word,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from kvmbox.contract.model import MemoryModel
    from kvmbox.wire.protocol import Parameter

    Words = tuple[int, int, int, int]
    Answer = tuple[int, int, int, int, bytes]

MAX_SNAPSHOT: Final = 1 << 20
MAX_ERROR_TEXT: Final = 1024

ACCESS_SIZES: Final = (1, 2, 4, 8)
_NOTHING: Final[tuple[int, int, list[Effect]]] = (0, 0, [])
NO_HEADER: Final = (0, 0, 0, 0)
"""Instead of a request's words: it is no frame. No good request begins with a zero."""


class DeviceServer:
    """The models of one device process. An answer is the reply's first word, its deadline and value, how long
    the value is steady, and the payload that follows its header.
    """

    def __init__(
        self,
        *,
        takes_source: bool = True,
        build: Callable[[str, dict[str, Parameter]], DeviceModel] = build_model,
    ) -> None:
        """`takes_source`: whether a HELLO may bring the text of a model, which is run then. `build` makes the
        models that have a name only.
        """
        self._takes_source = takes_source
        self._build = build
        self.models: list[DeviceModel] = []
        self.running = True
        self.routes: dict[int, tuple[Any, ...]] = {}
        """By the first word of an access, without its sequence number: what `answer` needs to know of it."""
        self._begun: tuple[int, int, list[Effect]] = _NOTHING
        """A wide access whose route has stopped at an access with effects: how many accesses were made, what
        they have read, and the effects."""
        self._may_ask: list[bool] = []  # by device: whether its model may ask for answers
        self.deadlines: list[int | None] = []
        """When each model must next be told the time, in ns of guest time. Always the same list."""
        self.deadline = NO_DEADLINE
        """The earliest of them."""
        self._outgoing_snapshot = b""
        self._incoming_snapshot = Parts("snapshot", MAX_SNAPSHOT)
        self._description = Parts("hello", protocol.MAX_BOARD)

    def handle(self, frame: bytes) -> bytes:
        """The reply to `frame`. Raises what a model raises, and FrameError for a frame that is none."""
        words = WORDS.unpack(frame) if len(frame) == HEADER.size else NO_HEADER
        first, deadline, value, steady, payload = self.answer(words, lambda _words: frame)
        return WORDS.pack(first, deadline, value, len(payload) << 32 | steady) + payload

    def answer(self, words: Words, frame: Callable[[Words], bytes]) -> Answer:
        """The answer to a request whose header is `words`; `frame` gives all of it. Raises as `handle`."""
        first, now, value, offset = words
        route = self.routes.get(first & ROUTE_MASK)
        if route is None or offset >> 32:  # the length of a payload
            if first & 0xFF in (CHAINS, WRITE_RUN):
                return self.answer_bulk(first, self.make_bulk(words, frame(words)))
            return self._answer_rare(frame(words))
        kind, call, size, device, next_deadline, take_effects, steady = route
        value = call(now, offset, size) if kind == READ else call(now, offset, size, value) or 0
        deadline = next_deadline()
        if deadline != self.deadlines[device]:
            self.set_deadline(device, deadline)
        effects = take_effects()
        if effects:
            if first & 0xFF in access_blocks.BLOCKS and not (kind == WRITE and self.is_made(size)):
                return self.continue_wide(words)
            word = first | REPLY | len(effects) << 24
            return word, self.deadline, value, 0, encode_effects_of(device, effects)
        if steady is None:
            return first | REPLY, self.deadline, value, 0, b""
        return first | REPLY, self.deadline, value, steady(offset, size, value), b""

    def set_deadline(self, device: int, deadline: int | None) -> None:
        """A model has this deadline now."""
        self.deadlines[device] = deadline
        self.deadline = self._earliest()

    def _earliest(self) -> int:
        return min((deadline for deadline in self.deadlines if deadline is not None), default=NO_DEADLINE)

    def _answer_rare(self, frame: bytes) -> Answer:
        request = protocol.decode_request(frame)
        if request.kind in access_blocks.BLOCKS:
            return self._answer_block(request, bytearray(), [], 0)
        if request.kind in (CHAINS, WRITE_RUN):
            return self.answer(WORDS.unpack_from(frame), lambda _words: frame)
        value, payload = 0, b""
        match request.kind:
            case protocol.HELLO:
                value = self._hello(request)
            case protocol.ADVANCE:
                for model in self.models:
                    model.advance(request.now)
            case protocol.RECEIVE:
                value = self.models[request.device].receive(request.now, request.payload)
            case protocol.MEMORY:
                data = request.payload if request.value >> 32 == DONE else None
                self._memory_model(request).memory(request.now, request.value & 0xFFFF_FFFF, data)
            case protocol.COMPLETE:
                for done in protocol.completions(request):
                    self._memory_model(request).complete(request.now, done & 0xFFFF_FFFF, done >> 32)
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
            case protocol.READ | protocol.WRITE | protocol.INDEXED_READ | protocol.COMPLETED_READ:
                raise FrameError(f"an access of {request.size} bytes to device {request.device}")
            case _:
                raise FrameError(f"unknown request {request.kind}")
        effects: list[tuple[int, Effect]] = []
        for index, model in enumerate(self.models):
            effects += [(index, effect) for effect in joined(model.take_effects())]
            self.deadlines[index] = model.next_deadline()
        self.deadline = self._earliest()
        return self._encoded(request, value, effects, payload)

    def make_bulk(self, words: Words, frame: bytes) -> list[Effect]:
        """Make CHAINS, of which a guest that reads a disk causes many, or WRITE_RUN. Return the effects."""
        first, now, value, offset = words
        device = first >> 8 & 0xFF
        if len(frame) != HEADER.size + (offset >> 32):
            raise FrameError(f"{len(frame)} bytes with a payload of {offset >> 32}")
        model: Any = self.models[device]  # as `_memory_model`
        offset, payload = offset & 0xFFFF_FFFF, frame[HEADER.size :]
        if first & 0xFF == CHAINS:
            model.chains(now, offset, decode_chains(payload), value)
        elif payload and hasattr(model, "write_run"):
            model.write_run(now, offset, payload)
        else:
            for byte in payload:
                model.write(now, offset, 1, byte)
        deadline = model.next_deadline()
        if deadline != self.deadlines[device]:
            self.set_deadline(device, deadline)
        return joined(model.take_effects())

    def answer_bulk(self, first: int, effects: list[Effect]) -> Answer:
        """The answer to CHAINS or WRITE_RUN, whose effects may be too many."""
        payload = encode_effects_of(first >> 8 & 0xFF, effects)
        if len(effects) > MAX_EFFECTS or len(payload) > MAX_PAYLOAD:
            raise FrameError(f"{len(effects)} effects in {len(payload)} bytes do not fit in a reply")
        return first | REPLY | len(effects) << 24, self.deadline, 0, 0, payload

    def _encoded(
        self, request: protocol.Request, value: int, effects: list[tuple[int, Effect]], payload: bytes
    ) -> Answer:
        reply = encode_reply(request, self.deadline, value, effects, payload)
        first, deadline, value, _ = WORDS.unpack_from(reply)
        return first, deadline, value, 0, reply[HEADER.size :]

    def is_made(self, size: int) -> bool:
        """Whether the last of `size` writes that a route has begun is the one with effects."""
        if self._begun[0] != size:
            return False
        self._begun = _NOTHING
        return True

    def continue_wide(self, words: Words) -> Answer:
        """The answer to a wide access that its route has begun, up to the first access with effects."""
        made, value, effects = self._begun
        self._begun = _NOTHING
        request = protocol.decode_request(WORDS.pack(*words))
        return self._answer_block(request, bytearray(value.to_bytes(made, "little")), effects, made)

    def _answer_block(
        self, request: protocol.Request, values: bytearray, effects: list[Effect], made: int
    ) -> Answer:
        """The answer to a block of which `made` accesses were made, which have read `values`."""
        block = access_blocks.Block(request)
        device, now, width = request.device, request.now, block.width
        model, may_ask = self.models[device], self._may_ask[device]
        read, write, take_effects = model.read, model.write, model.take_effects
        steady = getattr(model, "steady", None) or never_steady
        is_string = block.reads and not block.step
        many = getattr(model, "write_string", None)
        if many is not None and not block.reads and not block.step:
            made, effects = many(now, request.offset, width, block.data), take_effects()
        latest = effects[:]
        while made < block.count and not (latest and access_blocks.ends(effects, latest, may_ask=may_ask)):
            offset = block.register(made)
            if block.reads:
                value = read(now, offset, width)
                if value >> 8 * width:
                    raise _unfit(value, width)
                values += value.to_bytes(width, "little")
            else:
                start = made * width
                write(now, offset, width, int.from_bytes(block.data[start : start + width], "little"))
            made += 1
            latest = take_effects()
            effects += latest
            is_first = is_string and made == 1 and not latest
            stays = steady(offset, width, int.from_bytes(values, "little")) if is_first else 0
            if stays and not stays & BEHIND_LATE_WRITES:
                values *= block.count  # all at one time, and nothing between them
                made = block.count
        self.set_deadline(device, model.next_deadline())
        value, behind = block.reply(made, bytes(values), has_effects=bool(effects))
        return self._encoded(request, value, [(device, effect) for effect in joined(effects)], behind)

    def _model_of(self, name: str, parameters: dict[str, Parameter]) -> DeviceModel:
        source = parameters.pop(protocol.SOURCE, None)
        if source is None or (name in MODELS and not self._takes_source):
            return self._build(name, parameters)
        if not self._takes_source:
            raise FrameError(f"model {name} brings its own source, which is for jailed processes only")
        return build_from_source(name, source, parameters)

    def _memory_model(self, request: protocol.Request) -> MemoryModel:
        # Only what a model has asked for is ever answered: one that has not these methods has not asked.
        model: Any = self.models[request.device]
        return model  # type: ignore[no-any-return]

    def _hello(self, request: protocol.Request) -> int:
        version, total = request.value & 0xFFFF_FFFF, request.value >> 32
        if version != protocol.VERSION:
            raise FrameError(f"protocol version {version}, this side speaks {protocol.VERSION}")
        if self.models:
            raise FrameError("a second hello")
        description = self._description.add(request.offset, total, request.payload)
        if description is None:
            return protocol.VERSION
        self.models = [self._model_of(*device) for device in protocol.decode_board(description)]
        self.deadlines[:] = [None] * len(self.models)
        self._may_ask = [hasattr(model, "memory") or hasattr(model, "complete") for model in self.models]
        for device, model in enumerate(self.models):
            for kind, call in ((READ, model.read), (WRITE, model.write), (INDEXED_READ, IndexedRead(model))):
                self._add_routes(kind, device, model, call)
            self._add_wide_routes(device, model)
            if self._may_ask[device]:
                self._add_complete_routes(device, self.models[device])
        return protocol.VERSION

    def _add_routes(
        self, kind: int, device: int, model: DeviceModel, call: Callable[..., int | None]
    ) -> None:
        steady = getattr(model, "steady", None) if kind != WRITE else None
        for size in ACCESS_SIZES:
            route = kind, call, size, device, model.next_deadline, model.take_effects, steady
            self.routes[request_word(kind, device, size)] = route

    def _add_complete_routes(self, device: int, model: Any) -> None:
        """COMPLETE of one tag, which follows each transfer, and the read that it comes with."""

        def complete(now: int, _offset: int, _size: int, done: int) -> None:
            model.complete(now, done & 0xFFFF_FFFF, done >> 32)

        def completed_read(now: int, offset: int, size: int, done: int) -> int:
            model.complete(now, done & 0xFFFF_FFFF, done >> 32)
            value: int = model.read(now, offset, size)
            return value

        def take_effects() -> list[Effect]:
            return joined(model.take_effects())

        word = request_word(protocol.COMPLETE, device, 0)
        self.routes[word] = WRITE, complete, 0, device, model.next_deadline, take_effects, None
        self._add_routes(COMPLETED_READ, device, model, completed_read)

    def _add_wide_routes(self, device: int, model: DeviceModel) -> None:
        read, write, take_effects = model.read, model.write, model.take_effects

        def read_wide(now: int, offset: int, size: int) -> int:
            value = 0
            for number in range(size):
                byte = read(now, offset + number, 1)
                if byte >> 8:
                    raise _unfit(byte, 1)
                value |= byte << 8 * number
                effects = take_effects()
                if effects:
                    self._begun = number + 1, value, effects
                    break
            return value

        def write_wide(now: int, offset: int, size: int, value: int) -> None:
            for number in range(size):
                write(now, offset + number, 1, value >> 8 * number & 0xFF)
                effects = take_effects()
                if effects:
                    self._begun = number + 1, 0, effects
                    break

        def write_list(now: int, offset: int, size: int, value: int) -> None:
            for number in range(size):
                write(now, offset >> 4 * number & 0xF, 1, value >> 8 * number & 0xFF)
                effects = take_effects()
                if effects:
                    self._begun = number + 1, 0, effects
                    break

        def take_begun() -> list[Effect]:
            return self._begun[2]

        steady = getattr(model, "steady", None) or never_steady

        def steady_wide(offset: int, size: int, value: int) -> int:
            parts = [steady(offset + number, 1, value >> 8 * number & 0xFF) for number in range(size)]
            least = min(parts)
            if not least or any(part & BEHIND_LATE_WRITES for part in parts):
                return 0
            return least & ~OVER_LATE_WRITES | min(part & OVER_LATE_WRITES for part in parts)

        kinds = (READ_WIDE, READ, read_wide), (WRITE_WIDE, WRITE, write_wide), (WRITE_LIST, WRITE, write_list)
        for kind, like, call in kinds:
            for size in range(2, ACCESS_SIZES[-1] + 1):
                # To who takes the route it is a read or a write that takes a little longer.
                steady_call = steady_wide if steady is not never_steady and like == READ else None
                route = like, call, size, device, model.next_deadline, take_begun, steady_call
                self.routes[request_word(kind, device, size)] = route

    def _replay(self, frames: bytes) -> int:
        """Replay requests that a lost process has answered. Return the CRC-32 of the replies."""
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
        state = self._incoming_snapshot.add(request.offset, request.value, request.payload)
        if state is None:
            return 1
        try:
            self.models[request.device].restore(state)
        except SnapshotError:
            return 0
        return 1


def never_steady(_offset: int, _size: int, _value: int) -> int:
    """What a model says that knows no steady values."""
    return 0


def _unfit(value: int, width: int) -> FrameError:
    return FrameError(f"{value:#x} was read, which does not fit in {width} bytes")


class IndexedRead:
    """What INDEXED_READ calls: the write of an index register that the VMM has posted, then the read."""

    __slots__ = ("read", "write")

    def __init__(self, model: DeviceModel) -> None:
        self.read = model.read
        self.write = model.write

    def __call__(self, now: int, offset: int, size: int, posted: int) -> int:
        self.write(now, posted >> 32, 1, posted & 0xFF)
        return self.read(now, offset, size)


def joined(effects: list[Effect]) -> list[Effect]:
    """The same effects, with consecutive host output combined: a run of writes gives one output."""
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


def error_answer(sequence: int, error: BaseException) -> Answer:
    """The last answer of a process whose model raised: a bounded text with the exception and its origin."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    where = ""
    if traceback is not None:
        code = traceback.tb_frame.f_code
        where = f" at {code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}"
    text = f"{type(error).__name__}: {error}{where}".encode("utf-8", "replace")[:MAX_ERROR_TEXT]
    return protocol.ERROR | sequence << 32, NO_DEADLINE, 0, 0, text


def error_frame(sequence: int, error: BaseException) -> bytes:
    """The same as a frame."""
    first, deadline, value, _, text = error_answer(sequence, error)
    return WORDS.pack(first, deadline, value, len(text) << 32) + text
