"""Coalesced port writes: writes that do not exit, and their delivery to the devices.

A port can be registered with KVM_REGISTER_COALESCED_MMIO (and KVM_CAP_COALESCED_PIO). The kernel then stores
a byte write to this port in a ring, and the guest continues. Only a full ring causes an exit
(Documentation/virt/kvm/api.rst, 4.116). The whole virtual machine has one ring of one page: {u32 first, u32
last}, then 170 entries of 24 bytes {u64 address, u32 length, u32 is_port, u8 data[8]}. The kernel moves
`last`, and the VMM moves `first`.

The board lists the ports whose writes may be late (`DeviceSpec.coalesced`). The order of writes still
matters: the guest must not see that another access overtakes a write. If KVM's ring holds earlier writes,
deliver them first: before any write that exits, and before any read that exits to a process with such a port.
With several vCPUs, this covers the writes of all of them.
While the window of a VGA is out of guest memory (`vga_window_switch`), writes of any size to it, and to more
ports of the VGA, are in the ring as well: then `deferred_writes` gives all of them. Writes to one port are
delivered as a run of bytes, and those to two adjacent registers in turn, such as index and data, as a string
of words. Writes to several registers in a row are one wide write. Of a run to a latch (`DeviceSpec.latches`),
such as an index register, the device gets the last one alone. The main thread also flushes the ring once per
slice, so that the last output of a guest appears even if the guest never exits again. But it does not wait
for the start of a process: then it kicks a vCPU, and the thread of that one drains the ring.

Who moves `first`, when, and under which lock
---------------------------------------------

1. Only the holder of the ring's lock moves `first`, and only forwards.
2. `first` passes an entry only after the device has answered the write. So an empty ring means that the
   devices have all writes. The run loop checks only this between two exits: one 64-bit word, without a lock.
3. A write at which its device fails stays in the ring, and so do the entries behind it. The next holder of
   the lock gets the same error and delivers nothing. The error ends the run, and no access of the guest
   overtakes the error: if the main thread has flushed, no vCPU thread prints or shuts down.
4. The holder of the lock delivers the entries that were in the ring when the lock was taken, and no more. So
   a guest that continues to write cannot keep a thread here. The writes of a vCPU before its exit are in the
   ring at this time.
5. A vCPU thread waits for the lock. The thread with the lock waits at most for device processes: the main
   thread limits its own waits (`Channel.request`), and the watchdog limits those of vCPU threads. A vCPU
   thread waits for room in an output stream only after the lock is released. Otherwise the end of another
   vCPU, or a reset, would wait for the reader of the output. The main thread never waits for the lock: a
   vCPU thread may hold the lock while it waits for a reply, and only the main thread can end this wait.
6. The lock of the ring is taken before the lock of a channel. A thread with the lock of a channel never takes
   the lock of the ring.

Compiled code also puts writes into the ring that have exited, and moves `last` (`let_post`). Only the thread
of the only vCPU does so, between two KVM_RUNs: the kernel reads `last` from the page each time.

`carry_along` is the exception to rule 2. `first` passes the write before the read that carries the write is
answered. With one vCPU nobody sees this, because the only thread that checks for an empty ring is the one
that carries the write. With more vCPUs no write is carried (`carries`), and none that may be late without
interrupts (`let_post`): a read behind it, as a request of its own, may find a value that is steady.

The kernel shares the ring and is trusted. The indices and lengths are checked anyway, so that a bug of the
kernel or of kvmbox does not look like a fault of the guest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from kvmbox.base.errors import UnknownExitError
from kvmbox.base.layout import PAGE_SIZE
from kvmbox.kvm import uapi

if TYPE_CHECKING:
    from kvmbox.remote.bus.proxy import DeviceProxy
    from kvmbox.remote.channel.mutex import Mutex

RING_WORD: Final = uapi.KVM_COALESCED_MMIO_PAGE_OFFSET * PAGE_SIZE // 8
"""Index among the 64-bit words of a vCPU's mapping of the one that holds `first` and, above it, `last`."""

ENTRY_SIZE: Final = 24
ENTRIES: Final = (PAGE_SIZE - 8) // ENTRY_SIZE
_START: Final = RING_WORD * 8 + 8
BYTE_TO_PORT: Final = 1 | 1 << 32  # length and is_port of an entry
_LOW: Final = 0xFFFF_FFFF


RUN, PAIRS, ROW = range(3)
"""How writes are given to a device: a run to one port, pairs to two, or one to each of several."""

MOST_POSTED: Final = 16
"""Writes to a port that have exited while the ring never was empty: then KVM had better coalesce it."""

MOST_IN_ROW: Final = 8
"""What one request has room for."""

_Give = Callable[[int, bytes], None]
Ways = Callable[["DeviceProxy"], tuple[_Give, _Give, _Give]]


class OutputRoom(Protocol):
    """Where a vCPU thread waits for room in the output streams, at the end of each access that prints."""

    def postpone(self, thread: int) -> None:
        """Let `thread` not wait until another one, or 0 for none, is named. Under the lock of the ring."""

    def wait_for_room(self) -> None:
        """Wait as long as a stream has no room, unless the calling thread's waits are postponed."""


class LateList(Protocol):
    """What gives the writes in a ring that are not all to single ports: see `deferred_writes`."""

    def give(self, first: int, last: int, ways: Ways) -> int:
        """Give some of the entries from `first` up to `last`, and take them out; returns how many."""


class CoalescedRing:
    """The ring of one virtual machine. `drain` and `carry_along` by vCPU threads, `flush` by the main one."""

    def __init__(
        self,
        words64: memoryview,
        words32: memoryview,
        data: memoryview,
        zones: Mapping[int, tuple[DeviceProxy, int]],
        *,
        room: OutputRoom,
        latches: Collection[int] = (),
        carries: bool = True,
        lock: Mutex | None = None,
    ) -> None:
        """The views are those of a vCPU's mapping; `zones` gives device and register of each port, `latches`
        the ports of latches. `room` is where the devices' channels make a vCPU thread wait. `carries` lets a
        write leave together with the read that needs it, which takes a machine of one vCPU.
        """
        self._room = room
        self._words64 = words64
        self._words32 = words32
        self._data = data
        self._zones = zones
        self._pairs = {port for port in zones if makes_pair(zones, port)}
        self._latches = latches
        self._alone: set[int] = set()  # ports whose writes no read takes along
        self.be_busy: Callable[[int], object] = lambda _port: None
        """Called by the vCPU thread when compiled code has put `MOST_POSTED` writes to a port here."""
        self._carries = carries
        self.owing: tuple[DeviceProxy, int, int] | None = None
        """Device, register and place in the ring of a read that was given and that the device must get. None
        when the ring gets empty: behind as many writes as it has places, the place would be the same.
        """
        self._window: LateList | None = None
        self._lock: Any = lock or threading.Lock()
        self._failure: Exception | None = None  # of the write that `first` points to
        self.writes = 0
        """How many writes came this way."""

    @property
    def ports(self) -> list[int]:
        """The ports to register."""
        return list(self._zones)

    @property
    def pending(self) -> bool:
        """Whether the ring holds writes."""
        ring = self._words64[RING_WORD]
        return bool(ring >> 32 != ring & _LOW)

    @property
    def waits_for_start(self) -> bool:
        """Whether a write in the ring is for a process that has not started. Raises as `flush`."""
        first, last = self._indices()
        places = range(first, last if first <= last else last + ENTRIES)
        zones = (self._zones.get(self._words64[RING_WORD + 1 + 3 * (place % ENTRIES)]) for place in places)
        return any(zone is not None and not zone[0].channel.is_started for zone in zones)

    def shares_process_with(self, device: object) -> bool:
        """Whether a write in the ring may be for the process of `device`."""
        channel = getattr(device, "channel", None)
        return any(proxy.channel is channel for proxy, _ in self._zones.values())

    def let_post(self, port: int, allowed: int) -> None:
        """If `allowed`, writes to `port` that exit may go to the ring; with PULSES (`contract.model`), each
        with a rise of pin 0 of its device. Under the lock of the device's channel. Compiled code does so.
        """
        (self._alone.add if allowed == 1 else self._alone.discard)(port)

    def open_window(self, window: LateList) -> None:
        """From now on `window` gives what is in the ring. Each write leaves it for itself."""
        self._window, self._carries = window, False

    def carry_along(self, device: object, word: int) -> tuple[int, int]:
        """Word and value of a read of `device`, to which `word` belongs. The only write in the ring is
        carried along with it, if it is for `device`; otherwise the ring is drained.
        """
        with self._lock:
            first, last = self._indices()
            if self._carries and (last - first) % ENTRIES == 1:
                ((port, _, byte),) = self._runs(first, first + 1)
                proxy, register = self._zones[port]
                if proxy is device and port not in self._alone:
                    self.owing = None
                    self._words32[2 * RING_WORD] = last
                    self.writes += 1
                    proxy.count(False, 1)
                    return proxy.with_index(word, register, byte[0])
        self.drain()
        return word, 0

    def newest(self, device: object) -> tuple[int, int] | None:
        """Register and byte of the newest write in the ring, if it is for `device` and may be carried.

        For the vCPU thread that fills the ring; the main thread may deliver the write meanwhile.
        """
        if not self._carries:
            return None
        last = (self._words64[RING_WORD] >> 32) - 1
        place = last if last >= 0 else ENTRIES - 1
        entry = RING_WORD + 1 + 3 * place
        if place >= ENTRIES or self._words64[entry + 1] != BYTE_TO_PORT:
            return None
        proxy, register = self._zones.get(self._words64[entry], (None, 0))
        return (register, self._data[_START + ENTRY_SIZE * place + 16]) if proxy is device else None

    def owe(self, device: DeviceProxy, register: int) -> bool:
        """Note that a read of `register` is given without asking `device`, whose write is the newest here.
        The device gets the read behind these writes, if there are no more by then. False: one is noted.

        For the vCPU thread that fills the ring. If the main thread delivers the writes at this moment, the
        device gets no read: as if the next one had come first.
        """
        last = self._words64[RING_WORD] >> 32
        if self.owing is not None and self.owing[2] == last:
            return False
        self.owing = device, register, last
        return True

    def drain(self) -> None:
        """Deliver every write to its device, then wait for room if the output has none. Called by a vCPU
        thread. Raises DeviceProcessError.
        """
        room = self._room
        with self._lock:
            room.postpone(threading.get_ident())
            try:
                self._give_all(
                    lambda proxy: (proxy.write_run, proxy.write_pairs, proxy.write_row),
                    lambda proxy: proxy.read_again,
                )
            finally:
                room.postpone(0)
        room.wait_for_room()

    def flush(self) -> bool:
        """The same by the main thread, unless a vCPU thread is at it; returns whether there were any.

        Raises DeviceProcessError.
        """
        if not self.pending or not self._lock.acquire(blocking=False):
            return False
        try:
            return self._give_all(
                lambda proxy: (proxy.flush_run, proxy.flush_pairs, proxy.flush_row),
                lambda proxy: proxy.flush_read,
            )
        finally:
            self._lock.release()

    def _give_all(self, ways: Ways, read: Callable[[DeviceProxy], Callable[[int], None]]) -> bool:
        """Under the lock: give what is in the ring now; returns whether that is anything. `ways` are those to
        give a run, pairs and a row, `read` the one of a read that is owed.
        """
        first, last = self._indices()
        if first == last:
            return False
        owed, self.owing = self.owing, None
        while first != last and self._window is not None:
            try:
                count = self._window.give(first, last, ways)
            except Exception as error:
                self._failure = error
                raise
            first = (first + count) % ENTRIES
            self.writes += count
        while first != last:
            for port, way, data in self._runs(first, last if last > first else ENTRIES):
                proxy, register = self._zones[port]
                first = (first + len(data)) % ENTRIES
                superseded = len(data) - 1 if port in self._latches and way == RUN else 0
                try:
                    ways(proxy)[way](register, data[superseded:])
                    if owed is not None and owed[2] == first == last:
                        read(owed[0])(owed[1])
                except Exception as error:
                    self._failure = error
                    raise
                if superseded:
                    proxy.count(False, superseded)
                self.writes += len(data)
                # Not before: another thread takes an empty ring for devices that have it all.
                self._words32[2 * RING_WORD] = first
        return True

    def _indices(self) -> tuple[int, int]:
        if self._failure is not None:
            raise self._failure
        ring = self._words64[RING_WORD]
        first, last = ring & _LOW, ring >> 32
        if first >= ENTRIES or last >= ENTRIES:
            raise UnknownExitError(f"KVM's ring of coalesced writes goes from {first} to {last} of {ENTRIES}")
        return first, last

    def _runs(self, first: int, end: int) -> list[tuple[int, int, bytes]]:
        """The entries from `first` up to `end`: port, way and bytes of each run. They were written to this
        port (RUN), to this one and the next one in turn (PAIRS), or to each port from this one on (ROW).
        """
        count = end - first
        words = self._words64[RING_WORD + 1 + 3 * first : RING_WORD + 1 + 3 * end]
        addresses = words[0::3].tolist()
        shapes = words[1::3].tolist()
        start = _START + ENTRY_SIZE * first + 16
        data = bytes(self._data[start : start + ENTRY_SIZE * (count - 1) + 1 : ENTRY_SIZE])
        if shapes.count(BYTE_TO_PORT) != count or not self._zones.keys() >= set(addresses):
            raise UnknownExitError(
                f"KVM coalesced writes that it was not asked for, to {', '.join(map(hex, set(addresses)))}"
            )
        if addresses.count(addresses[0]) == count:
            return [(addresses[0], RUN, data)]
        runs = []
        done = 0
        while done < count:
            port, start = addresses[done], done
            pair = [port, port + 1]
            in_pairs = port in self._pairs and addresses[done : done + 2] == pair
            row = 1 if in_pairs else self._row(addresses[done : done + MOST_IN_ROW])
            if row > 1:
                done += row
                runs.append((port, ROW, data[start:done]))
                continue
            unit = pair if in_pairs else [port]
            while addresses[done : done + len(unit)] == unit:
                done += len(unit)
            runs.append((port, PAIRS if in_pairs else RUN, data[start:done]))
        return runs

    def _row(self, addresses: Sequence[int]) -> int:
        """How many of these writes, from the first one on, go to one register after another of a device."""
        proxy, register = self._zones[addresses[0]]
        length = 1
        while addresses[length : length + 1] == [addresses[0] + length] and self._zones[
            addresses[0] + length
        ] == (proxy, register + length):
            length += 1
        return length


def makes_pair(zones: Mapping[int, tuple[DeviceProxy, int]], port: int) -> bool:
    """Whether the next port has the next register of the same device, and the device takes bytes only."""
    proxy, register = zones[port]
    return zones.get(port + 1) == (proxy, register + 1) and 2 not in proxy.natural_sizes
