"""More that is fuzzed: processes that break and are restarted, and snapshots."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from kvmbox.base.errors import DeviceProcessError, GivenUpError, SandboxError
from kvmbox.base.layout import PAGE_SIZE
from kvmbox.contract.device_spec import DeviceSpec, Memory, by_type
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.jail.server import DeviceServer, error_frame
from kvmbox.parts.restart.recovery import POISONED, AllOnes, Restart
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import bind
from kvmbox.remote.channel.hello import greet, hello_of
from kvmbox.remote.process.crash_policy import ProcessControl, Survival
from kvmbox.run.vcpu.coalesced_ring import ENTRIES
from kvmbox.wire import protocol
from kvmbox.wire.protocol import HEADER, MAX_PAYLOAD, Request, request_word
from tests.fuzz.frames import Liar
from tests.fuzz.models import damaged
from tests.fuzz.plants import Parts
from tests.fuzz.targets import Fault
from tests.support.calling import CallingTransport, GoneError
from tests.support.dice import Dice
from tests.support.model_variants import VARIANTS
from tests.support.noting_host import NotingHost

_OPTIONS: Final = BoardOptions(("COM1", "COM2"), 1_700_000_000, 1 << 24)
BOARD: Final = by_type([*pc_board(_OPTIONS), VARIANTS["pc_testdev"]])
TYPES: Final = tuple(sorted(BOARD, key=lambda name: (name == VARIANTS["pc_testdev"].device_type, name)))
"""The last one has so much memory that a snapshot takes several requests."""
MAX_STEP_NS: Final = 3_000_000
MOST_TOLD: Final = 1000
"""Characters of the reason to give up."""


def random_request(dice: Dice, devices: list[DeviceSpec], sequence: int, now: int) -> Request:
    """Something that a VMM may ask, with arguments of a guest's choice."""
    way = dice.random()
    device = dice.randrange(len(devices))
    size = dice.choice((1, 1, 1, 2, 4, 8))
    offset = dice.randrange(8) if way < 0.95 else dice.getrandbits(32)
    if way < 0.4:
        return Request(protocol.READ, device, size, sequence, now, 0, offset)
    if way < 0.8:
        value = dice.getrandbits(8 * size)
        if devices[device].granted(Memory) and dice.random() < 0.5:  # the address of a block, big-endian
            address = dice.randrange(min(PAGE_SIZE, 1 << 8 * size))
            value = int.from_bytes(address.to_bytes(size, "big"), "little")
        return Request(protocol.WRITE, device, size, sequence, now, value, offset)
    coalesced = bool(devices[device].coalesced)
    if way < 0.84 and coalesced:
        value = dice.randrange(8) << 32 | dice.getrandbits(8)
        return Request(protocol.INDEXED_READ, device, size, sequence, now, value, offset)
    payload = dice.randbytes(dice.choice((1, 3, 20, 300, MAX_PAYLOAD)))
    if way < 0.88:
        return Request(protocol.RECEIVE, device, 0, sequence, now, 0, 0, payload)
    if way < 0.9 and coalesced:
        return Request(protocol.WRITE_RUN, device, 0, sequence, now, 0, offset, payload[: ENTRIES - 1])
    if way < 0.91:
        return Request(protocol.RESET, 0, 0, sequence, now)
    return Request(protocol.ADVANCE, 0, 0, sequence, now)


# --- Restarts ---------------------------------------------------------------------------------------------


def spoil(dice: Dice, frame: bytes, reply: bytes) -> bytes:
    """A reply that nobody may believe."""
    fields: list[int] = list(HEADER.unpack_from(reply))
    match dice.randrange(9):
        case 0:
            raise GoneError
        case 1:
            fields[4] ^= 1 << dice.randrange(32)
        case 2:
            fields[6] = (1 << 64) - 1
            # The reply to a read of eight bytes may have any value: this is not one.
            fields[0] ^= 1 << dice.randrange(7)
        case 3:
            return reply[: dice.randrange(1, HEADER.size)]
        case 4:
            return error_frame(HEADER.unpack_from(frame)[4], ValueError("a bug"))
        case 5:
            return reply + dice.randbytes(dice.randrange(1, 5000))
        case 6:
            # A read may be steady for some time: this is too long, and everything is for other requests.
            is_read = fields[0] & ~protocol.REPLY in protocol.STEADY_KINDS
            fields[7] = 1 << dice.randrange(protocol.MAX_STEADY.bit_length() if is_read else 0, 32)
        case 7:
            fields[3] = (fields[3] + 1 + dice.randrange(200)) & 0xFF
            if fields[0] == protocol.SNAPSHOT | protocol.REPLY:
                raise GoneError  # a snapshot's payload may look like effects
        case _:  # of another length, which is told: what is read, or made, is less or more than all
            if fields[3]:
                raise GoneError  # with effects, less is good
            payload = dice.randbytes((fields[8] + dice.randrange(1, 40)) % 48)
            return HEADER.pack(*fields[:8], len(payload)) + payload
    return HEADER.pack(*fields) + reply[HEADER.size :]


class Life(CallingTransport):
    """A process that the target may break."""

    def __init__(self, on_reply: Callable[[bytes, bytes], bytes], server: Callable[[], DeviceServer]) -> None:
        handle = server().handle
        super().__init__(lambda sent: on_reply(sent, handle(sent)))


def send(channel: Channel, request: Request, limit: int) -> int:
    """The value of `request`, which is made by whoever would make it."""
    if request.size:
        word = request_word(request.kind, request.device, request.size)
        return channel.access(word, request.offset, request.value, limit)
    value, _ = channel.request(
        request.kind,
        device=request.device,
        value=request.value,
        offset=request.offset,
        payload=request.payload,
        limit=limit,
    )
    return value


def use_block(dice: Dice, device: int, offset: int) -> Callable[[Channel], bytes]:
    """An access of several bytes, or of several values, which is one request; what it reads."""
    size, count = dice.some((1, 2, 4)), 1 + dice.byte() % 40
    data = dice.randbytes(size * count)
    way = dice.byte()
    offset ^= way >> 4 & 8  # registers behind the first eight, too
    more = 200 * (way & 32)  # than one request has room for
    slices = 1 if way & 8 else None  # by the main thread, or by the vCPU thread
    is_enough = bool(way & 16)

    def write_wide(channel: Channel) -> bytes:
        channel.write_wide(device, offset, data[:8], slices)
        return b""

    def write_list(channel: Channel) -> bytes:
        word = request_word(protocol.WRITE_LIST, device, 8)
        channel.access(word, int.from_bytes(data[:4], "little"), int.from_bytes(data[-8:], "little"), 0)
        return b""

    match way % 8:
        case 0 | 1:
            return lambda channel: channel.read_string(
                device, offset, size, count + more, until=lambda: is_enough
            )
        case 2 | 3:
            return lambda channel: channel.write_string(
                device, offset, size, data, slices, until=lambda: is_enough
            ).to_bytes(4, "little")
        case 4 | 5:
            return write_wide
        case 6:
            return write_list
    word = request_word(protocol.READ_WIDE, device, max(2, size))
    limit = (1 << 8 * max(2, size)) - 1
    return lambda channel: channel.access(word, offset, 0, limit).to_bytes(8, "little")


MOST_LOSSES: Final = POISONED - 1
"""How many processes may be lost at a request, and on the way to it, without an end of the run."""


def some_memory(dice: Dice) -> bytes:
    """A page in which a device finds blocks that ask for a little, at places that may be memory."""
    words = [dice.byte() % 128 // 2 * (dice.byte() & 1) for _ in range(16)]
    return b"".join([word.to_bytes(4, "big") for word in words]) * (PAGE_SIZE // 64)


class Timeless:
    """What `Recovery` asks of its pool, where no time passes and nobody looks on."""

    def pause_time(self) -> None:
        pass

    def resume_time(self) -> None:
        pass

    def restarted(self, restart: Restart) -> None:
        pass


class LivesTarget(Timeless):
    """A device process that breaks all the time, and its guest, who has a twin whose process never does."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.frames = self.accepted = 0
        self._begun = False

    def _begin(self, dice: Any) -> None:
        self._begun = True
        self._dice = dice
        self._devices: list[DeviceSpec] = BOARD[dice.choice(TYPES)]
        self._now = 0
        self._sequence = 1
        self._losses = MOST_LOSSES  # none by its HELLO
        memory = some_memory(dice)
        self._host, self._twin_host = NotingHost(), NotingHost()
        self._channel = self._connect(
            Life(self._reply, self._parts.server),
            self._host,
            memory,
            self._parts.recovery(self._devices, self, ProcessControl(), journal_limit=20),
        )
        self._twin = self._connect(CallingTransport(DeviceServer().handle), self._twin_host, memory)

    def _connect(
        self, process: CallingTransport, host: NotingHost, memory: bytes, survival: Survival | None = None
    ) -> Channel:
        host.ram.write(0, memory)
        grants = [bind(device, host) for device in self._devices]
        record: Callable[[bytes, bytes], None] | None = (lambda _sent, _reply: None) if survival else None
        channel = Channel("fuzzed", process, grants, now=lambda: self._now, survival=survival, record=record)
        greet(channel, self._devices)
        return channel

    def _reply(self, frame: bytes, reply: bytes) -> bytes:
        # Whatever has broken at a request may well break there again.
        likely = 0.03 if self._losses == 0 else 0.3
        if self._losses == MOST_LOSSES or self._dice.random() > likely:
            return reply
        self._losses += 1
        return spoil(self._dice, frame, reply)

    # What Recovery asks of its pool.

    def replace(self, name: str, error: DeviceProcessError) -> Life:
        assert name == "fuzzed"
        if not str(error).isprintable():
            raise Fault(f"said {error}")
        return Life(self._reply, self._parts.server)

    def take_from_budget(self) -> bool:
        return True

    def step(self, liar: Liar) -> None:
        """One request to both, and their guests compare. Raises Fault."""
        if not self._begun:
            self._begin(liar.dice)
        dice = self._dice
        self._now += dice.randrange(MAX_STEP_NS)
        self._sequence += 1
        request = random_request(dice, self._devices, self._sequence, self._now)
        act: Callable[[Channel], object] = partial(send, request=request, limit=(1 << 64) - 1)
        if dice.byte() < 40:
            act = use_block(dice, request.device, request.offset % 16)
        host, twin_host = self._host, self._twin_host
        host.log.clear()
        twin_host.log.clear()
        self._losses = 0
        self.frames += 1
        expected = act(self._twin)
        try:
            value = act(self._channel)
        except GivenUpError as error:
            raise Fault(f"{request.encode().hex()}: gave up: {error}") from error
        self.accepted += self._losses == 0
        if value != expected or host.log != twin_host.log:
            raise Fault(
                f"{request.encode().hex()}: {value!r} and {host.log}, not {expected!r}, {twin_host.log}"
            )
        if self._channel.deadline != self._twin.deadline:
            raise Fault(
                f"{request.encode().hex()}: deadline {self._channel.deadline}, not {self._twin.deadline}"
            )
        if host.ram.read(0, PAGE_SIZE) != twin_host.ram.read(0, PAGE_SIZE):
            raise Fault(f"{request.encode().hex()}: memory differs")

    def close(self) -> None:
        """Nothing is open."""


class LossesTarget(Timeless):
    """A device process that breaks for good: nobody can replace it, or it becomes a missing device."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.frames = self.accepted = 0
        self._channel: Channel | None = None

    def _begin(self, dice: Any) -> Channel:
        self._dice = dice
        self._devices = BOARD[dice.choice(TYPES)]
        self._now = self._sequence = 0
        self._is_missing = False
        self._is_spared = dice.byte() & 1 == 1
        way = dice.byte()
        self._likely, self._is_poor = dice.choice((0.05, 0.5)), way & 2 == 2
        host = self._host = NotingHost()
        survival = (
            AllOnes(self._lost) if way & 1 else self._parts.recovery(self._devices, self, journal_limit=20)
        )
        life = Life(self._reply, self._parts.server)
        channel = self._channel = Channel(
            "fuzzed",
            life,
            [bind(device, host) for device in self._devices],
            now=lambda: self._now,
            survival=survival,
        )
        greet(channel, self._devices)
        return channel

    def _reply(self, frame: bytes, reply: bytes) -> bytes:
        if frame[0] == protocol.HELLO and self._is_spared:
            return reply
        return spoil(self._dice, frame, reply) if self._dice.random() < self._likely else reply

    def _lost(self, error: DeviceProcessError) -> None:
        if self._is_missing or not str(error).isprintable():
            raise Fault(f"lost: {error}")
        self._is_missing = True
        self._host.log.clear()

    # What Recovery asks of its pool.

    def replace(self, _name: str, _error: DeviceProcessError) -> Life:
        if self._dice.random() < 0.3:
            raise SandboxError("there are too many processes")
        return Life(self._reply, self._parts.server)

    def take_from_budget(self) -> bool:
        return not self._is_poor or bool(self._dice.random() < 0.6)

    def step(self, liar: Liar) -> None:
        """One request. Raises Fault."""
        dice: Any = liar.dice
        self.frames += 1
        try:
            channel = self._channel or self._begin(dice)
            self._ask(dice, channel)
        except GivenUpError as error:
            if not str(error).isprintable() or len(str(error)) > MOST_TOLD:
                raise Fault(f"gave up: {error!r}") from error
            self._channel = None

    def _ask(self, dice: Any, channel: Channel) -> None:
        self._now += dice.randrange(MAX_STEP_NS)
        self._sequence += 1
        request = random_request(dice, self._devices, self._sequence, self._now)
        if dice.byte() < 40:
            use_block(dice, request.device, request.offset % 16)(channel)
            return
        was_missing = self._is_missing
        channel.survival.overdue(bool(self._sequence & 1))
        value = send(channel, request, (1 << 64) - 1)
        if was_missing and request.kind == protocol.READ and value != (1 << 8 * request.size) - 1:
            raise Fault(f"a missing device gave {value:#x}")
        if was_missing and self._host.log:
            raise Fault(f"a missing device did {self._host.log}")
        self.accepted += not self._is_missing

    def close(self) -> None:
        """Nothing is open."""


# --- Snapshots ------------------------------------------------------------------------------------------


class SnapshotTarget:
    """A model that is given damaged snapshots, as RESTORE requests, and has to live with what it accepts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.frames = self.accepted = 0
        self._server: DeviceServer | None = None

    def step(self, liar: Liar) -> None:
        """One snapshot. Raises Fault."""
        dice: Any = liar.dice
        if self._server is None:
            self._devices = BOARD[dice.choice(TYPES)]
            self._server = self._parts.server()
            for hello in hello_of(self._devices):
                self._server.handle(hello.encode())
            self._now = 0
        server = self._server
        for _ in range(3):
            self._ask(random_request(dice, self._devices, 1, self._now))
        device = dice.randrange(len(self._devices))
        good = self._snapshot(server, device)
        bad = damaged(dice, good)
        self.frames += 1
        answer = 0
        for part in range(max(1, -(-len(bad) // MAX_PAYLOAD))):
            piece = bad[part * MAX_PAYLOAD : (part + 1) * MAX_PAYLOAD]
            frame = Request(protocol.RESTORE, device, 0, 1, 0, len(bad), part, piece).encode()
            try:
                answer = HEADER.unpack_from(server.handle(frame))[6]
            except Exception as error:
                raise Fault(f"{self._devices[device].model}, {bad.hex()}: raised {error!r}") from error
        if answer:
            self.accepted += 1
            again = server.models[device].snapshot()
            if self._devices[device].model == "rtc_mc146818":
                bad = again  # the time in its registers follows from the rest: it shows the right one
                server.models[device].restore(bad)
                again = server.models[device].snapshot()
            if again != bad:
                raise Fault(f"{self._devices[device].model}, {bad.hex()}: accepted, and is none of its own")
        elif server.models[device].snapshot() != good:
            raise Fault(f"{self._devices[device].model}, {bad.hex()}: refused, and changed the state")
        for _ in range(3):
            self._ask(random_request(dice, self._devices, 1, self._now))
        if answer and bad != good:
            # Whatever time it believes in, the next one begins with a good one.
            server.models[device].restore(good)

    def _snapshot(self, server: DeviceServer, device: int) -> bytes:
        """As the VMM asks for it, in parts."""
        state, total = b"", 1
        while len(state) < total:
            frame = Request(protocol.SNAPSHOT, device, 0, 1, 0, 0, len(state) // MAX_PAYLOAD).encode()
            reply = server.handle(frame)
            total, state = HEADER.unpack_from(reply)[6], state + reply[HEADER.size :]
        assert state == server.models[device].snapshot()
        return state

    def _ask(self, request: Request) -> None:
        assert self._server is not None
        self._now += 1_000
        request.now = self._now
        try:
            self._server.handle(request.encode())
        except Exception as error:
            raise Fault(
                f"{self._devices[0].device_type}, {request.encode().hex()}: raised {error!r}"
            ) from error

    def close(self) -> None:
        """Nothing is open."""
