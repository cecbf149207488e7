"""The virtqueues of a device: the VMM walks them and moves the bytes, and the device gets handles.

A model says with `Queue` that a queue is live or gone, and with `Walk` that it wants its chains
(`queue_walks`). Where the queue is the VMM has from the guest's own writes (`Watch`): the size and the
addresses in `Queue` count for nothing, but for size 0. The VMM walks the ring (`walker`), and sends handles,
lengths and first bytes: CHAINS. The model says with effects on a handle what is to be moved. So a device
process can reach only what the guest has published for this device. With `ChainServe` it says everything at
once, and hears of the chain no more.

Who is at fault. Addresses, sizes and descriptors are the guest's. What is no ring makes the queue dead, and
the model is told so: CHAINS with BAD_ADDRESS. The model decides what it does with a chain. So a handle that
is not the name of a chain, and bytes beyond a part of one, break the protocol.

Handles. Each has another number, until all 2^32 were used, and is void after `ChainUsed` and `ChainServe`,
when its queue is published or withdrawn (`Queue`), and after a reset of the machine. All of these are the
device's own effects, or a request that it has seen. So it always knows which handles are void, and an effect
on a void one breaks the protocol, without exception. What one reply says is checked before any of it is done:
an effect on a handle that the same reply has made void before does nothing. A transfer that is under way when
its handle becomes void moves nothing into guest memory, and nobody is told of it, nor of one that was done
just before.

What the guest takes back, by a write, is out of reach before the process sees the write. The handles of such
a queue are not void until the process says that it is gone. But all that is done with them does nothing, and
reads give zeros.

How much a request moves. A chain has one read and one transfer at a time, until the device is told of it.
What exceeds `MOST_MOVED` bytes is left to the transfer thread.

Questions wait. One request has at most `MAX_FOLLOW_UPS` follow-ups, and a guest can feed a ring for ever. So
what is wanted here is kept, and made a request when its turn comes (`next_request`): first the transfers that
are done, all of them in one COMPLETE, then reads, then walks. What finds no room any more is for the main
thread, which comes by as if a transfer were done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from struct import Struct
from typing import Any, Final, Protocol

from kvmbox.base.memory import GuestMemory
from kvmbox.contract.bulk_data import (
    CHAIN_HEAD,
    EVENT_INDEX,
    INDIRECT,
    Chain,
    ChainRead,
    ChainServe,
    ChainTransfer,
    ChainUsed,
    ChainWrite,
    ConfigChanged,
    Connect,
    Flush,
    Queue,
    Walk,
)
from kvmbox.contract.device_spec import Queues
from kvmbox.contract.model import BAD_ADDRESS, BEYOND_END, BUSY, DONE, Effect
from kvmbox.host.disk.transfers import Settle, status_of
from kvmbox.remote.channel.effect_calls import CAN_WAIT, Application, FollowUp
from kvmbox.remote.published.guest_memory import answer
from kvmbox.remote.published.medium import MediumAccess, complete
from kvmbox.remote.published.queue_interrupts import CONFIG_CHANGE, USED_BUFFER, QueueInterrupts
from kvmbox.remote.published.queue_packets import CONNECTION, Connection, connection_of
from kvmbox.remote.published.queue_walks import QueueWalks
from kvmbox.remote.published.walker import Parts, PublishedRing, RingError
from kvmbox.wire import protocol
from kvmbox.wire.chains import MAX_CHAINS, encode_chains
from kvmbox.wire.protocol import MAX_PAYLOAD

Ranges = list[tuple[int, int]]
_Later = Callable[[int], Sequence[Any]]
"""Is told the status of a transfer when it is done, and gives what follows for the channel."""
Media = Callable[[int], MediumAccess | None]
"""Gives a medium of the device by its number."""

MOST_MOVED: Final = 16 << 20
"""How many bytes are moved at once within one request."""

_MOST_TOLD: Final = MAX_PAYLOAD // 8
_HANDLES: Final = 1 << 32

PACKET_MOVED: Final = 1 << 16
"""As how many bytes of these a packet counts."""

_MAGIC: Final = b"VQS\x04"
_STATE: Final = Struct("<4sIBBHHH")  # magic, last handle, interrupts; rings, chains, completions, reads
_RING: Final = Struct("<BIB3QHH")  # 0 none, 1 ring; entries, flags, areas, indices
_LIVE: Final = Struct("<IBHHH")  # handle, queue, descriptor, how many readable and writable ranges
_RANGE: Final = Struct("<QI")
_TOLD: Final = Struct("<II?")
_READ: Final = Struct("<III")


def piece(ranges: Ranges, skip: int, size: int) -> Iterator[tuple[int, int]]:
    """The bytes [skip, skip + size) of ranges, as ranges."""
    for address, length in ranges:
        if skip < length and size:
            part = min(length - skip, size)
            yield address + skip, part
            size -= part
            skip = 0
        else:
            skip -= min(skip, length)


class Live:
    """A chain that the device has."""

    __slots__ = (
        *("index", "is_served", "is_taken_back", "moving", "parts", "readable", "reading", "writable"),
    )

    def __init__(self, index: int, parts: Parts) -> None:
        self.index = index
        self.parts = parts
        self.readable = sum(size for _, size in parts.readable)
        self.writable = sum(size for _, size in parts.writable)
        self.is_taken_back = False
        self.is_served = False  # the handle is void, and the chain goes back when its bytes were moved
        self.moving = False
        self.reading = False


def _may(media: Media, resource: int, live: Live, skip: int, size: int, to_guest: int) -> MediumAccess | None:
    """The medium, if such bytes of the chain may be moved between the two."""
    medium = media(resource)
    if medium is None or not medium.allows(size, to_guest=bool(to_guest)):
        return None
    return medium if skip + size <= (live.writable if to_guest else live.readable) else None


class Watch(Protocol):
    """What the guest has written to registers of one device, and so where its queues are. Pure."""

    def forget(self) -> None:
        """The device is reset."""

    def published(self, index: int) -> tuple[int, int, int, int]:
        """Where the guest has published a queue: entries, none if it has not, and the areas."""

    def resets(self, offset: int, value: int, size: int) -> bool:
        """Whether a write resets the device."""

    def write(self, offset: int, value: int, size: int = 4) -> Sequence[int]:
        """The guest writes a register. The queues that it has taken back by that."""

    def state(self) -> bytes:
        """What is written, for `restore`."""

    @property
    def state_size(self) -> int:
        """How many bytes `state` gives."""

    def restore(self, state: bytes) -> None:
        """Be as `state` says, which has `state_size` bytes."""


class DeviceQueues:
    """The queues of one device. Used under the lock of its channel."""

    def __init__(
        self, grant: Queues, ram: GuestMemory, come_by: Callable[[Settle], bool], watch: Watch
    ) -> None:
        """`come_by` has the main thread call what it is given, as soon as the host takes output again, or
        returns False: then it will come by anyway, since too much of the device is under way.
        """
        self.grant = grant
        self._ram = ram
        self._come_by = come_by
        self._rings: list[PublishedRing | None] = [None] * grant.count
        self._live: dict[int, Live] = {}
        self._last = 0
        self._watch = watch
        self._told: list[tuple[int, int, bool]] = []  # tag, status, and whether it is of a transfer
        self._reads: deque[tuple[int, int, int]] = deque()
        self.walks = QueueWalks(grant.count)
        self.interrupts = QueueInterrupts()
        self._connections: dict[int, Connection] = {}  # by queue
        self._device = 0
        self._is_postponed = False
        self._moved = 0  # bytes, within this request

    # --- What may be asked for ----------------------------------------------------------------------------

    def check(self, device: int, effect: Effect, media: Media) -> Application | None:
        """What an effect of the device, number `device` of its process, calls; None: it breaks the rules."""
        grant = self.grant
        self._device = device
        match effect:
            case Queue(index, _, flags) if index < grant.count and not flags & ~(EVENT_INDEX | INDIRECT):
                return self._publish, (effect,), 0
            case Walk(index, count, pin) if index < grant.count and count <= MAX_CHAINS and self._has(pin):
                return self._want, (index, count, pin), 0
            case Connect(index, _, resource) if index < grant.count:
                connection = connection_of(effect, media(resource))
                return None if connection is None else (self._connect, (index, connection), 0)
            case Flush(tag, resource) if (medium := media(resource)) is not None:
                return self._flush, (tag, medium), CAN_WAIT
            case ConfigChanged(pin) if self._has(pin):
                return self._changed, (pin,), 0
            case ChainRead() | ChainWrite() | ChainTransfer() | ChainServe() | ChainUsed():
                live = self._live.get(effect.handle)
                return None if live is None or live.is_served else self._on_chain(effect, live, media)
        return None

    def _has(self, pin: int) -> bool:
        return pin < len(self.interrupts.lines)

    def _on_chain(self, effect: Effect, live: Live, media: Media) -> Application | None:
        match effect:
            case ChainRead(handle, skip, size) if not live.reading:
                if skip + size > live.readable or size > MAX_PAYLOAD:
                    return None
                return self._read, (handle, skip, size), CAN_WAIT
            case ChainWrite(handle, skip, data) if skip + len(data) <= live.writable:
                return self._write, (handle, skip, data), 0
            case ChainUsed(handle, written) if written <= live.writable:
                return self._use, (handle, written), CAN_WAIT
            case ChainTransfer(_, resource, _, skip, size, to_guest) if not live.moving:
                if (medium := _may(media, resource, live, skip, size, to_guest)) is not None:
                    return self._transfer, (effect, medium), CAN_WAIT
            case ChainServe(_, resource, _, skip, size, to_guest, place, good, bad) if not live.moving:
                medium = _may(media, resource, live, skip, size, to_guest)
                if medium is not None and place < live.writable and good | bad <= 0xFF:
                    return self._serve, (effect, medium), CAN_WAIT
        return None

    # --- Queues -------------------------------------------------------------------------------------------

    def note(self, offset: int, value: int, size: int = 4) -> Sequence[Any]:
        """The guest is about to write a register. What is to be sent because of it: nothing."""
        if self._watch.resets(offset, value, size):
            self.interrupts.forget()
        for index in self._watch.write(offset, value, size):
            self._stop(index)
            for live in self._live.values():
                live.is_taken_back |= live.index == index
        return ()

    def _changed(self, pin: int) -> None:
        self.interrupts.add(CONFIG_CHANGE, pin, raises=True)

    def _want(self, index: int, count: int, pin: int) -> None:
        self._connections.pop(index, None)
        self.walks.want(index, count, pin)

    def _connect(self, index: int, connection: Connection) -> None:
        if self.walks.wanted(index):
            self._connections[index] = connection
            ring = self._rings[index]
            with suppress(RingError):  # the device hears of it when the guest notifies
                # What was made available before, and notified of, is not notified of again.
                if connection.to_guest and ring is not None and ring.waiting():
                    connection.has_buffers()

    def _publish(self, queue: Queue) -> None:
        self._withdraw(queue.index)
        if queue.size:
            self._open(queue.index, queue.flags, *self._watch.published(queue.index))

    def _open(self, index: int, flags: int, size: int, *areas: int) -> None:
        if 0 < size <= self.grant.max_size:
            with suppress(RingError):  # the device hears of it when it asks for chains
                self._rings[index] = self.new_ring(index, size, flags, *areas)

    def new_ring(self, index: int, size: int, flags: int, *areas: int) -> PublishedRing:
        """Queue `index`, in this memory. Raises RingError."""
        raise NotImplementedError

    def _stop(self, index: int) -> None:
        self._rings[index] = None
        self._connections.pop(index, None)
        self.walks.stop(index)
        self._reads = deque(read for read in self._reads if self._live[read[0]].index != index)

    def _withdraw(self, index: int) -> None:
        self._stop(index)
        self._live = {handle: live for handle, live in self._live.items() if live.index != index}

    def forget(self) -> None:
        """The machine is reset: there are no queues."""
        self._watch.forget()
        self.interrupts.forget()
        self._told.clear()
        self._is_postponed = False  # what was to wake us is dropped as well
        for index in range(self.grant.count):
            self._withdraw(index)

    def notified(self, index: int) -> Sequence[Any]:
        """The guest notifies of a queue. What is to be sent because of it; nothing if the device has to see
        it.
        """
        return [self.next_request] if self.walks.notified(index) else ()

    def _in_hand(self) -> list[int]:
        counts = [0] * self.grant.count
        for live in self._live.values():
            counts[live.index] += 1
        return counts

    def _chains(self) -> FollowUp | None:
        """The chains of the next queue that has some."""
        while (walk := self.walks.next(self._in_hand(), self.grant.max_chains)) is not None:
            index, count = walk
            taken: list[Parts] = []
            ring = self._rings[index]
            connection = self._connections.get(index)
            try:
                if ring is not None and connection is not None:
                    if not self._moves(index, ring, connection, count):
                        return self.next_request(has_room=False)
                    continue
                if ring is not None:
                    taken = ring.take(count)
            except RingError:
                ring = self._rings[index] = None
            if ring is None:
                self.walks.stop(index)
                return FollowUp(protocol.CHAINS, self._device, BAD_ADDRESS, index)
            self.walks.found(index, len(taken), count)
            if taken:
                found = encode_chains([self._name(index, parts) for parts in taken])
                return FollowUp(protocol.CHAINS, self._device, DONE, index, found)
        self._moved = 0
        return None

    # --- Packets ------------------------------------------------------------------------------------------

    def _moves(self, index: int, ring: PublishedRing, connection: Connection, most: int) -> bool:
        """Send packets, or say that there are chains for those that come. False: too many for one request.

        Raises RingError.
        """
        if connection.to_guest:
            connection.has_buffers()
            return True
        count = self.send_from(index, ring, connection, most)
        self.walks.found(index, count, most)
        self._moved += PACKET_MOVED * count
        return self._moved <= MOST_MOVED

    def send_from(self, index: int, ring: PublishedRing, connection: Connection, most: int) -> int:
        """Send the packets of the next chains: how many there are, `most` at most. Raises RingError."""
        taken = ring.take(most)
        if taken:
            self.add_used(index, raises=connection.send(ring, self._ram, taken))
        return len(taken)

    def put_into(self, index: int, ring: PublishedRing, connection: Connection, packet: bytes) -> int | None:
        """Put a packet into the next chains: see `put`. Raises RingError."""
        count = connection.put(ring, self._ram, packet)
        if count:
            self.add_used(index, raises=ring.wants_interrupt(count))
        return count

    def is_connected(self, store: object) -> bool:
        """Whether packets of a store go to a queue, without the device."""
        return any(one.to_guest and one.medium.store is store for one in self._connections.values())

    def put(self, store: object, packet: bytes) -> int | None:
        """Put a packet of a store into chains of the queue that is connected to it. Into how many; 0: there
        will never be any for it; None: there are none now.
        """
        for index, connection in self._connections.items():
            ring = self._rings[index]
            if connection.to_guest and connection.medium.store is store and ring is not None:
                try:
                    return self.put_into(index, ring, connection, packet)
                except RingError:
                    self._rings[index] = None
                    self.walks.notified(index)  # the device is told
        return None

    def _name(self, index: int, parts: Parts) -> Chain:
        while (handle := (self._last + 1) % _HANDLES) in self._live:
            self._last = handle
        self._last = handle
        live = self.take_in(handle, index, parts)
        return Chain(handle, live.readable, live.writable, self.head_of(parts))

    def head_of(self, parts: Parts) -> bytes:
        """What the device gets of a chain at once."""
        return self._ram.gather(list(piece(parts.readable, 0, CHAIN_HEAD)))

    def take_in(self, handle: int, index: int, parts: Parts) -> Live:
        """The device has a chain of queue `index`."""
        live = self._live[handle] = Live(index, parts)
        return live

    # --- Chains -------------------------------------------------------------------------------------------

    def _read(self, handle: int, skip: int, size: int) -> list[Any]:
        live = self._live.get(handle)
        if live is not None and not live.reading:
            live.reading = True
            self._reads.append((handle, skip, size))
        return [self.next_request]

    def _write(self, handle: int, skip: int, data: bytes) -> None:
        if (live := self._live.get(handle)) is not None:
            self._scatter(live, skip, data)

    def _scatter(self, live: Live, skip: int, data: bytes) -> None:
        if live.is_taken_back:
            return
        position = 0
        for address, size in piece(live.parts.writable, skip, len(data)):
            self._ram.write(address, data[position : position + size])
            position += size

    def _use(self, handle: int, written: int) -> list[Any]:
        live = self._live.get(handle)
        if live is not None and not live.is_served:
            self._forget_asked(handle)
            self._give_back(handle, live, written)
        return [self.next_request]

    def _forget_asked(self, handle: int) -> None:
        if self._reads:
            self._reads = deque(read for read in self._reads if read[0] != handle)
        if self._told:
            self._told = [told for told in self._told if not (told[2] and told[0] == handle)]

    def _give_back(self, handle: int, live: Live, written: int) -> None:
        del self._live[handle]
        self.walks.given_back(live.index)
        ring = self._rings[live.index]
        if ring is not None and not live.is_taken_back:
            ring.give_back(live.parts.head, written)
            self.add_used(live.index, raises=ring.wants_interrupt())

    def add_used(self, index: int, *, raises: bool) -> None:
        """A chain has gone back, and the guest wants an interrupt for that, or not."""
        self.interrupts.add(USED_BUFFER, self.walks.pins[index], raises=raises)

    def _serve(self, asked: ChainServe, medium: MediumAccess) -> list[Any]:
        live = self._live.get(asked.handle)
        if live is not None and not live.is_served:
            live.is_served = True
            self._forget_asked(asked.handle)

            def served(status: int) -> Sequence[Any]:
                self._served(asked, live, status)
                return [self.next_request]

            status = DONE if live.is_taken_back else self._move(asked, live, medium, served)
            if status is not None:
                self._served(asked, live, status)
        return [self.next_request]

    def _served(self, asked: ChainServe, live: Live, status: int) -> None:
        """The bytes of a chain were moved, or could not be: what the device has said for that."""
        self._scatter(live, asked.place, bytes((asked.good if status == DONE else asked.bad,)))
        filled = asked.size if status == DONE and asked.to_guest and not asked.skip else 0
        self._give_back(asked.handle, live, asked.place + 1 if filled == asked.place else filled)

    def _transfer(self, asked: ChainTransfer, medium: MediumAccess) -> list[Any]:
        live = self._live.get(asked.handle)
        if live is not None and not live.moving:
            live.moving = True
            handle = asked.handle

            def moved(status: int) -> Sequence[Any]:
                live.moving = False
                return [complete(self._device, (handle, status)), self.next_request]

            status = DONE if live.is_taken_back else self._move(asked, live, medium, moved)
            if status is not None:
                self._told.append((handle, status, True))
        return [self.next_request]

    def _move(
        self, asked: ChainTransfer | ChainServe, live: Live, medium: MediumAccess, later: _Later
    ) -> int | None:
        """Move the bytes, and return the status, or None if `later` will be called with it."""
        handle, offset, skip, size = asked.handle, asked.offset, asked.skip, asked.size
        if not medium.has(offset, size):
            return BEYOND_END
        self._moved += size
        is_now = self._moved <= MOST_MOVED
        if asked.to_guest:
            found = medium.read_now(offset, size) if is_now else None
            if isinstance(found, bytes):
                self._scatter(live, skip, found)
                return DONE
            if found is not None:
                return found

            def arrived(data: bytes) -> None:
                self._scatter(live, skip, data)

            return self._later(handle, medium, lambda: medium.store.read(offset, size), arrived, later)
        medium.writes += 1
        data = self._ram.gather(list(piece(live.parts.readable, skip, size)))

        def store() -> bytes:
            medium.store.write(offset, data)
            return b""

        if not (is_now and medium.store.writes_now):
            return self._later(handle, medium, store, lambda _nothing: None, later)
        try:
            store()
        except OSError as error:
            return status_of(error)
        return DONE

    def _later(
        self,
        handle: int,
        medium: MediumAccess,
        act: Callable[[], bytes],
        then: Callable[[bytes], None],
        later: _Later,
    ) -> int | None:
        """Let the transfer thread do `act`. What is to be done with the bytes is done then, and `later`
        called.
        """
        live = self._live[handle]
        found: list[bytes] = []

        def work() -> int:
            try:
                found.append(act())
            except OSError as error:
                return status_of(error)
            return DONE

        def settle(status: int) -> Sequence[Any]:
            if self._live.get(handle) is not live or live.is_taken_back:
                return ()
            if status == DONE:
                then(found[0])
            return later(status)

        return None if medium.submit(handle, work, settle) else BUSY

    def _flush(self, tag: int, medium: MediumAccess) -> list[Any]:
        found = medium.flush(self._device, tag)
        if found:  # it is done, or could not be begun: to be told with the others
            self._told.append((tag, found[0].value >> 32, False))
        return [self.next_request]

    # --- Requests -----------------------------------------------------------------------------------------

    def next_request(self, has_room: bool) -> FollowUp | None:
        """What is to be sent next: see `effect_calls`. Without room for it, it is left to the main thread."""
        is_any = bool(self._told or self._reads or self.walks.is_any_due)
        if not (has_room and is_any):
            self._moved = 0  # the request is over
            if is_any and not self._is_postponed:
                self._is_postponed = self._come_by(self._resume)
            return None
        if self._told:
            told, self._told = self._told[:_MOST_TOLD], self._told[_MOST_TOLD:]
            for tag, _, is_moved in told:
                if is_moved and tag in self._live:
                    self._live[tag].moving = False
            return complete(self._device, *[(tag, status) for tag, status, _ in told])
        if self._reads:
            handle, skip, size = self._reads.popleft()
            live = self._live[handle]
            live.reading = False
            ranges = list(piece(live.parts.readable, skip, size))
            data = bytes(size) if live.is_taken_back else self._ram.gather(ranges)
            return answer(protocol.MEMORY, self._device, handle, DONE, data)
        return self._chains()

    def _resume(self, _status: int) -> Sequence[Any]:
        self._is_postponed = False
        return [self.next_request]

    # --- Snapshots ----------------------------------------------------------------------------------------

    def state(self) -> bytes:
        """Everything, when no transfer is under way."""
        lives = {handle: live for handle, live in self._live.items() if not live.is_taken_back}
        # Of a chain that the guest has taken back only a hostile device reads: it gets no answer.
        reads = [one for one in self._reads if one[0] in lives]
        counts = len(self._rings), len(lives), len(self._told), len(reads)
        parts = [_STATE.pack(_MAGIC, self._last, self.interrupts.status, *counts)]
        parts += [self._watch.state(), self.walks.state()]
        for ring in self._rings:
            fields = (0,) * 7 if ring is None else (ring.size, ring.flags, *_areas(ring), *_indices(ring))
            parts.append(_RING.pack(ring is not None, *fields))
        for handle, live in lives.items():
            ranges = live.parts.readable + live.parts.writable
            count = len(live.parts.readable)
            parts.append(_LIVE.pack(handle, live.index, live.parts.head, count, len(ranges) - count))
            parts += [_RANGE.pack(*one) for one in ranges]
        parts += [_TOLD.pack(*one) for one in self._told]
        parts += [_READ.pack(*one) for one in reads]
        none = bytes(CONNECTION.size)
        found = [self._connections.get(index) for index in range(self.grant.count)]
        parts += [none if one is None else one.state() for one in found]
        return b"".join(parts)

    def restore(self, device: int, state: bytes, media: Media = lambda _: None) -> Sequence[Any]:
        """Be as `state` says, for device number `device`; what is to be sent because of it (`effect_calls`).

        ValueError for bytes that are no state.
        """
        self._device = device
        try:
            self._restore(_Reader(state), media)
        except (RingError, ValueError) as error:
            self.forget()
            raise ValueError(f"no state of {self.grant.count} queues: {error}") from error
        return [self.next_request]

    def _restore(self, reader: _Reader, media: Media) -> None:
        magic, last, interrupts, rings, lives, told, reads = reader.take(_STATE)
        if magic != _MAGIC or rings != self.grant.count or interrupts > USED_BUFFER | CONFIG_CHANGE:
            raise ValueError(f"{rings} rings, interrupts {interrupts:#x}")
        self.forget()
        self._watch.restore(reader.bytes(self._watch.state_size))
        walks = reader.bytes(self.walks.state_size)
        for index in range(rings):
            present, size, flags, *areas, available, used = reader.take(_RING)
            if present:
                self._open(index, flags, size, *areas)
                ring = self._rings[index]
                if ring is None:
                    raise ValueError(f"ring {index} is none")
                ring.next_available, ring.next_used = available, used
        for _ in range(lives):
            handle, index, head, readable, writable = reader.take(_LIVE)
            ranges = [reader.take(_RANGE) for _ in range(readable + writable)]
            ring = self._rings[index] if index < rings else None
            # A queue that was found to be none leaves the device with the chains that it had.
            fits = index < rings and (ring is None or head < ring.size)
            if not fits or not self._ram.has(ranges) or handle in self._live:
                raise ValueError(f"chain {handle}")
            self._live[handle] = Live(index, Parts(head, ranges[:readable], ranges[readable:]))
        self.walks.restore(walks)
        self.interrupts.status = interrupts
        self._last = last
        self._told = [reader.take(_TOLD) for _ in range(told)]
        for tag, _, is_moved in self._told:
            if is_moved and tag in self._live:
                self._live[tag].moving = True
        wanted = deque(reader.take(_READ) for _ in range(reads))
        for handle, skip, size in wanted:
            live = self._live.get(handle)
            if live is None or skip + size > live.readable or size > MAX_PAYLOAD:
                raise ValueError(f"a read of chain {handle}")
            live.reading = True
        self._reads = wanted
        for index in range(rings):
            chains, to_guest, resource, header, count_at = reader.take(CONNECTION)
            if chains:
                asked = Connect(index, to_guest, resource, header, count_at, chains)
                connection = connection_of(asked, media(resource))
                if connection is None:
                    raise ValueError(f"a connection of queue {index}")
                self._connections[index] = connection
        reader.end()


class _Reader:
    """Takes bytes apart. Raises ValueError where there are too few or too many."""

    def __init__(self, state: bytes) -> None:
        self._state = state
        self._position = 0

    def bytes(self, size: int) -> bytes:
        start, self._position = self._position, self._position + size
        if self._position > len(self._state):
            raise ValueError("it ends too early")
        return self._state[start : self._position]

    def take(self, struct: Struct) -> Any:
        return struct.unpack(self.bytes(struct.size))

    def end(self) -> None:
        if self._position != len(self._state):
            raise ValueError("there is something behind its end")


def _areas(ring: PublishedRing) -> tuple[int, int, int]:
    return ring.descriptors, ring.available, ring.used


def _indices(ring: PublishedRing) -> tuple[int, int]:
    return ring.next_available, ring.next_used
