"""The routes of a vCPU's exits to devices, and how many exits took which.

A route leads from the words of an exit directly to the channel's `access` and its arguments. There is a
dictionary for port exits, whose key is the packed (direction, size, port, count) word, and one for
memory-mapped accesses, whose key is address, length and direction. Claimed ports and addresses get an entry
at their first exit, `MAX_ROUTES` of them at most: a device of 64 KiB (pc-testdev) has more addresses than the
main thread could count in a slice. A few unclaimed ports get one, too.

The vCPU thread adds routes and counts; any thread may read the counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from kvmbox.remote.bus.routing import Bus, Mapping, SteadyValues
from kvmbox.remote.channel.steady_reads import BEHIND_WRITES
from kvmbox.run.vcpu.coalesced_ring import CoalescedRing
from kvmbox.run.vcpu.run_state import Access

MMIO_KIND_BITS: Final = 40  # length and direction; what lies above is nobody's, and may be anything
MMIO_KIND_MASK: Final = (1 << MMIO_KIND_BITS) - 1

MAX_ROUTES: Final = 4096
"""How many routes each of the two dictionaries has at most. What has none goes by the bus."""

MOST_UNCLAIMED: Final = 64
"""How many kinds of accesses to unclaimed ports get a route."""

ACCESS: Final = 0xFFFF_FFFF  # direction, size and port of a packed word

Table = dict[int, list[Any]]
"""Routes by key: count, access, word, offset, limit, size, is_read, guarded, device, what is accessed, its
steady values, and how many of the exits were answered with one.
"""


def port_access(word: int) -> Access:
    """What a port exit with this packed word is for."""
    return "out" if word & 1 else "in", word >> 16 & 0xFFFF, word >> 8 & 0xFF


def memory_access(address: int, kind: int) -> Access:
    """What a memory-mapped exit of this length and direction is for."""
    return "write" if kind >> 32 & 0xFF else "read", address, kind & 0xFFFF_FFFF


def nobody(_word: int, _offset: int, _value: int, limit: int) -> int:
    """The access to a port that no device claims: a read gives all ones."""
    return limit


class Routes:
    """The routes of one vCPU, and its counts of exits."""

    def __init__(self, ports: Bus, mmio: Bus, ring: CoalescedRing | None) -> None:
        """`ring` has the writes that KVM coalesced, if it does."""
        self.ports = ports
        self.mmio = mmio
        self._ring = ring
        self.by_port: Table = {}
        self.by_address: Table = {}
        self._unclaimed: set[int] = set()  # the keys of routes to nobody
        self._other_port_exits: dict[int, int] = {}
        self._other_mmio_exits = 0
        self.unrouted = 0
        """The exits without a route, whatever they were for."""
        self.interruptions = 0
        """How often KVM_RUN was kicked."""
        self.stale = False
        """Whether a bus has changed, so that `forget` comes before the next look at the routes."""

    @property
    def exit_count(self) -> int:
        """How often KVM_RUN has returned."""
        return self.interruptions + self.guest_exits

    @property
    def guest_exits(self) -> int:
        """The same, without the times that it was kicked."""
        return self.unrouted + self._exits(self.by_port) + self._exits(self.by_address)

    @property
    def mmio_exits(self) -> int:
        """How often it was for a memory-mapped access."""
        return self._other_mmio_exits + self._exits(self.by_address)

    @property
    def port_exits(self) -> dict[int, int]:
        """Exits by packed word (direction, size, port), claimed ports only."""
        counts = dict(self._other_port_exits)
        for word in [word for word in list(self.by_port) if word not in self._unclaimed]:
            counts[word & ACCESS] = counts.get(word & ACCESS, 0) + self._exits_of(self.by_port, word)
        return counts

    @property
    def steady_exits(self) -> dict[int, int]:
        """Of `port_exits`, those that the VMM answered with a steady value."""
        found = {word & ACCESS: self._steady_of(self.by_port, word) for word in list(self.by_port)}
        return {word: count for word, count in found.items() if count}

    def _exits_of(self, table: Table, key: int) -> int:
        """How many exits took the route of `key`; 0 if it is gone."""
        route = table.get(key)
        return 0 if route is None else int(route[0])

    def outdate(self) -> None:
        """A bus has changed: routes may lead to where nothing is. By any thread."""
        self.stale = True

    def _steady_of(self, table: Table, key: int) -> int:
        exits: int = table[key][-1]
        return exits

    def _accesses_of(self, table: Table, key: int) -> int:
        """How many accesses they made."""
        return self._exits_of(table, key)

    def _exits(self, table: Table) -> int:
        # A copy of the keys in one step, as the vCPU thread may add one meanwhile.
        return sum(self._exits_of(table, key) for key in list(table))

    # --- The vCPU's own thread ----------------------------------------------------------------------------

    def port_exit(self, word: int, what: Access, count: int) -> None:
        """Count a port exit without a route, and give it one if it is of `count` 1 and may have one."""
        self.unrouted += 1
        _, port, size = what
        mapping = self.ports.find_all(port, size)
        if mapping is None:
            if count == 1 and self.ports.is_unclaimed(port, size):
                self._add_unclaimed(word, what)
            return
        if count == 1:
            self._add(self.by_port, word, mapping, what)
        # Without the count, or a string instruction of each length would be an entry of its own.
        word &= ACCESS
        self._other_port_exits[word] = self._other_port_exits.get(word, 0) + 1

    def memory_exit(self, address: int, kind: int, what: Access) -> None:
        """The same of a memory-mapped access. It is in `unrouted` already."""
        self._other_mmio_exits += 1
        _, _, length = what
        mapping = self.mmio.find_all(address, length)
        if mapping is not None:
            self._add(self.by_address, address << MMIO_KIND_BITS | kind, mapping, what)

    def _add(self, table: Table, key: int, mapping: Mapping, what: Access) -> None:
        direction, address, size = what
        is_read = direction in ("in", "read")
        direct = mapping.direct
        is_whole = mapping.takes_whole(address, size)
        if direct is None or len(table) >= MAX_ROUTES or not (is_whole or direct.at_once):
            return
        device = direct if is_whole else direct.in_bytes(size)
        access, request, limit, steady = device.fast_path(is_read, size)
        # A write must not overtake any other. What a read can see is only in its own process.
        ring = self._ring
        guarded = ring is not None and (not is_read or ring.shares_process_with(device))
        register = mapping.register(address)
        route = [0, access, request, register, limit, size, is_read, guarded, device, what, steady, 0]
        self._put(table, key, route)

    def _add_unclaimed(self, key: int, what: Access) -> None:
        """Give a port that nobody has a route, too; so many at most, as a guest may try all ports."""
        if len(self._unclaimed) >= MOST_UNCLAIMED:
            return
        self._unclaimed.add(key)
        direction, _, size = what
        limit = (1 << 8 * size) - 1
        # Dropped or all ones: no earlier write can make a difference.
        self._put(
            self.by_port, key, [0, nobody, 0, 0, limit, size, direction == "in", False, None, what, None, 0]
        )

    def _put(self, table: Table, key: int, route: list[Any]) -> None:
        table[key] = route

    def forget(self) -> None:
        """Forget all routes, but not what took them."""
        self.stale = False
        self.count_accesses()
        self._other_port_exits = self.port_exits
        mmio_exits = self._exits(self.by_address)
        self._other_mmio_exits += mmio_exits
        self.unrouted += mmio_exits + self._exits(self.by_port)
        self._unclaimed.clear()
        self.by_port.clear()
        self.by_address.clear()

    def count_accesses(self) -> None:
        """The run loop has ended: let the devices count the accesses that took routes."""
        for table in (self.by_port, self.by_address):
            for key, (_, _, _, _, _, size, is_read, _, device, *_) in table.items():
                accesses = self._accesses_of(table, key)
                if device is not None:
                    device.count(is_read, accesses)
                elif is_read:
                    self.ports.unclaimed_reads += size * accesses  # in bytes, as the bus counts them
                else:
                    self.ports.unclaimed_writes += size * accesses


def port_exits(vcpus: Iterable[Routes]) -> dict[int, int]:
    """`Routes.port_exits` of several vCPUs together."""
    counts: dict[int, int] = {}
    for routes in vcpus:
        for word, count in routes.port_exits.items():
            counts[word] = counts.get(word, 0) + count
    return counts


def known_value(
    steady: SteadyValues, word: int, offset: int, device: Any, ring: CoalescedRing | None
) -> int | None:
    """What a read gives, if that is known. `ring`, if there is one, holds undelivered writes."""
    known = steady.value(word, offset, 0, late=ring is not None)
    if known is None and ring is not None and (posted := ring.newest(device)) is not None:
        word_of_index, index = device.with_index(word, *posted)
        known = steady.value(word_of_index, offset, index, late=False)
        if known is None:
            known = steady.value(word, offset, BEHIND_WRITES, late=False)
            if known is not None and not ring.owe(device, offset):
                return None
    return known


class ExitTotals:
    """The counts of the exits of all boots. The keys of `ports` are those of `Routes.port_exits`."""

    def __init__(self) -> None:
        self.format = ""
        """How the image was booted: "multiboot", "elf32", "elf64" or "real"."""
        self.boots = 0
        self.exits = 0
        self.mmio_exits = 0
        self.ports: dict[int, int] = {}
        self.steady: dict[int, int] = {}
        """Of `ports`, those that were answered with a steady value."""
        self.exits_by_cpu: list[int] = []

    def add(self, vcpus: list[Routes]) -> None:
        """Count the vCPUs of a boot that has ended."""
        self.boots += 1
        self.exits_by_cpu += [0] * (len(vcpus) - len(self.exits_by_cpu))
        for number, routes in enumerate(vcpus):
            self.exits += routes.exit_count
            self.exits_by_cpu[number] += routes.exit_count
            self.mmio_exits += routes.mmio_exits
            for word, count in routes.steady_exits.items():
                self.steady[word] = self.steady.get(word, 0) + count
        for word, count in port_exits(vcpus).items():
            self.ports[word] = self.ports.get(word, 0) + count
