"""The run loop of a vCPU: KVM_RUN, read kvm_run, route, ask the device, complete, and again.

The cost. With hardware virtualization the exit itself takes about 1 µs, and the request to the device process
is most of the rest. So the loop reads kvm_run through memoryviews that were cast once. One dictionary, whose
key is the packed (direction, size, port, count) word of the exit, leads directly to the channel's `access`
and its arguments. Between two KVM_RUNs of a byte-wide port exit there are four reads of kvm_run, one
dictionary lookup, one list unpacked, the count, and the call. This takes some 0.3 µs, besides `access` and
the foreign function call of KVM_RUN itself (0.5 µs). Memory-mapped accesses have another dictionary, whose
key is address, length and direction. Claimed ports and addresses get an entry, `MAX_ROUTES` of them at most:
a device of 64 KiB (pc-testdev) has more addresses than the main thread could count in a slice. A few
unclaimed ports get one, too.

If KVM's ring holds earlier writes, deliver them first (`coalescing`).

After a pause, the loop announces its next exit to the main thread before it handles the exit
(`tells_next_exit`). This allows the main thread to sleep longer. It costs other exits nothing, because the
loop enters the guest through another function meanwhile.

The loop ends when the outcome is decided, when the guest asked for a reset, or when KVM or a device process
failed. `attention` is the only flag that the loop checks between exits. A thread that sets the flag also
kicks the vCPU.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from ctypes import get_errno
from enum import Enum
from typing import Any, Final

from kvmbox.bus import Bus, Mapping, SteadyValues
from kvmbox.errors import UnknownExitError
from kvmbox.kvm import exits, uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.outcome import GUEST_CRASHED, Outcome
from kvmbox.run.coalescing import RING_WORD, CoalescedRing
from kvmbox.run.crash_report import ReadMemory, crash_report, internal_error

_EXIT_REASON: Final = 2  # index into 32-bit words of kvm_run
_IO_WORD: Final = 4  # index into 64-bit words: direction, size, port and count of a port exit
_IO_DATA_OFFSET: Final = 5
_MMIO_ADDRESS: Final = 4  # the same words of a memory-mapped exit; between them lie the eight bytes of data
_MMIO_KIND: Final = 6
MMIO_KIND_BITS: Final = 40  # length and direction; what lies above is nobody's, and may be anything
MMIO_KIND_MASK: Final = (1 << MMIO_KIND_BITS) - 1
_MMIO_DATA: Final = uapi.RUN_MMIO_DATA
_KVM_EXIT_IO: Final = uapi.KVM_EXIT_IO
_KVM_EXIT_MMIO: Final = uapi.KVM_EXIT_MMIO
_VALID_REGS: Final = uapi.RUN_VALID_REGS
_SYNC_RIP: Final = uapi.RUN_SYNC_RIP // 8
_SAME_HALVES: Final = 0x1_0000_0001
"""What divides a 64-bit word if its halves are equal: first and last of an empty ring."""

MOST_RECENT: Final = 32
"""How many accesses the loop remembers, for the report of a crash."""

MAX_ROUTES: Final = 4096
"""How many routes each of the two dictionaries has at most. What has none goes by the bus."""

_IS_READ: Final = 6  # places in a route
_DEVICE: Final = 8
_ACCESS: Final = 0xFFFF_FFFF  # direction, size and port of a packed word

PARK: Final = 1  # attention: stand still between two exits, until `unpark`
LEAVE: Final = 2  # attention: end the loop
_TOLD: Final = 4  # attention, by the loop itself: the next exits need no telling
OBSERVE: Final = 8  # attention: show the next exits to the observer, as long as it wants to see them

Access = tuple[str, int, int]
"""What an exit was for: "in", "out", "read" or "write", the port or address, and the size in bytes."""

OTHERS: Final = 0  # what `met` answers: the exit is nobody's but the loop's
IGNORE: Final = 1  # the guest goes on, as if there had been no exit
STOP: Final = 2  # stand still, and go on
CRASH: Final = 3  # stand still, and then it is the loop's


def _port_access(word: int) -> Access:
    return "out" if word & 1 else "in", word >> 16 & 0xFFFF, word >> 8 & 0xFF


def _memory_access(address: int, kind: int) -> Access:
    return "write" if kind >> 32 & 0xFF else "read", address, kind & 0xFFFF_FFFF


MOST_UNCLAIMED: Final = 64
"""How many kinds of accesses to unclaimed ports get a route."""


def nobody(_word: int, _offset: int, _value: int, limit: int) -> int:
    """The access to a port that no device claims: a read gives all ones."""
    return limit


def _known_value(
    steady: SteadyValues, word: int, offset: int, device: Any, ring: CoalescedRing | None
) -> int | None:
    """What a read gives, if that is known. `ring`, if there is one, holds undelivered writes."""
    known = steady.value(word, offset, 0, late=ring is not None)
    if known is None and ring is not None and (posted := ring.newest(device)) is not None:
        word, index = device.with_index(word, *posted)
        known = steady.value(word, offset, index, late=False)
    return known


class UnclaimedPorts:
    """Counts such accesses, as the bus counts them: by bytes."""

    def __init__(self, bus: Bus, size: int) -> None:
        self._bus = bus
        self._size = size

    def count(self, is_read: bool, accesses: int) -> None:
        """See DirectDevice."""
        if is_read:
            self._bus.unclaimed_reads += self._size * accesses
        else:
            self._bus.unclaimed_writes += self._size * accesses


class LoopEnd(Enum):
    """Why `VcpuLoop.run` returned."""

    LEFT = "asked to leave"
    DECIDED = "the loop itself has an outcome"


class LoopTotals:
    """The counts of the run loops of all boots. The keys of `ports` are those of `VcpuLoop.port_exits`."""

    def __init__(self) -> None:
        self.format = ""
        """How the image was booted: "multiboot", "elf32", "elf64" or "real"."""
        self.boots = 0
        self.exits = 0
        self.mmio_exits = 0
        self.ports: dict[int, int] = {}
        self.exits_by_cpu: list[int] = []

    def add(self, loops: Sequence[VcpuLoop]) -> None:
        """Count the loops of a boot that has ended."""
        self.boots += 1
        self.exits_by_cpu += [0] * (len(loops) - len(self.exits_by_cpu))
        for number, loop in enumerate(loops):
            self.exits += loop.exit_count
            self.exits_by_cpu[number] += loop.exit_count
            self.mmio_exits += loop.mmio_exits
        for word, count in port_exits(loops).items():
            self.ports[word] = self.ports.get(word, 0) + count


def port_exits(loops: Sequence[VcpuLoop]) -> dict[int, int]:
    """`VcpuLoop.port_exits` of several vCPUs together."""
    counts: dict[int, int] = {}
    for loop in loops:
        for word, count in loop.port_exits.items():
            counts[word] = counts.get(word, 0) + count
    return counts


class VcpuLoop:
    """Runs one vCPU. `exit_count` may be read by any thread; `request_attention` called by any."""

    def __init__(
        self,
        vcpu: Vcpu,
        ports: Bus,
        mmio: Bus,
        *,
        read_memory: ReadMemory,
        ring: CoalescedRing | None = None,
        told: Callable[[], None] = lambda: None,
        decide: Callable[[Outcome], object] = lambda outcome: None,
        is_pvm: bool = False,
        name: str | None = None,
        met: Callable[[exits.Exit], int] | None = None,
    ) -> None:
        """`ring` has the writes that KVM coalesced, if it does. `told` is called by the loop's thread when
        the loop has parked, and with the exit that `tells_next_exit` promised, before that is handled.
        `decide` hears the outcome if the loop itself has one.
        `is_pvm` tells what a refused instruction means. `name` is that of the CPU, if there are several.
        `met` is asked about each rare exit by a debugger, if there is one: OTHERS, IGNORE, STOP or CRASH.
        """
        self._met = met
        self._stopped = False
        self._is_pvm = is_pvm
        self._name = name
        self._vcpu = vcpu
        self._enter: Callable[[], int] = vcpu.enter
        self._read_memory = read_memory
        self._ports = ports
        self._mmio = mmio
        self._ring = ring
        self._recent: deque[tuple[Access, int | None]] = deque(maxlen=MOST_RECENT)
        self._remember: Callable[[tuple[Access, int | None]], object] = self._recent.append
        if vcpu.bytes[_VALID_REGS]:
            self._remember = self._remember_with_rip
        self.last_rip = 0
        """RIP at the last access to a device, at that instruction or behind it; 0 if KVM does not show it."""
        # count, access, word, offset, limit, size, is_read, guarded, device, what is accessed
        self._routes: dict[int, list[Any]] = {}
        self._mmio_routes: dict[int, list[Any]] = {}
        self._told = told
        self._decide = decide
        self.tells_next_exit = False
        """Whether the next exit is told: for any thread to read."""
        self.parked = False
        """Whether the loop is parked between two exits. Thread-safe."""
        self.paused_in_access = False
        """Of a parked loop: whether it had an exit to handle when it was asked to park."""
        self._observer: Callable[[Access], bool] | None = None
        self._accessed: Access | None = None  # by the exit that KVM has to complete, if it is observed
        self._interruptions = 0
        self._attention = 0
        self._attention_changed = threading.Condition(threading.Lock())
        self._other_port_exits: dict[int, int] = {}
        self._unrouted_exits = 0
        self._unclaimed: set[int] = set()  # the keys of routes to nobody
        self._unclaimed_exits = 0
        self._other_mmio_exits = 0
        self.other_exits: dict[int, int] = {}
        self.outcome: Outcome | None = None

    def request_attention(self, flag: int) -> None:
        """Make the loop check `attention` now, even if the guest is halted or spinning."""
        with self._attention_changed:
            self._attention |= flag
            self._attention_changed.notify_all()
        self._vcpu.kick()

    def unpark(self) -> None:
        """Let a parked loop continue, or withdraw PARK if the loop has not seen it yet."""
        with self._attention_changed:
            self._attention &= ~PARK
            self.parked = self.paused_in_access = False
            self._attention_changed.notify_all()

    def go_on(self) -> None:
        """End the stop that `met` has asked for, with the next `unpark`."""
        self._stopped = False

    def observe(self, observer: Callable[[Access], bool]) -> None:
        """Before the loop runs: show the first exits, and those after a request for OBSERVE, to `observer`.

        It is called by the loop's thread, between the instruction that made the exit and the next one. It
        returns whether it wants to see another exit.
        """
        self._observer = observer
        self._attention |= OBSERVE

    @property
    def exit_count(self) -> int:
        """How often KVM_RUN has returned."""
        return self._interruptions + self.guest_exits

    @property
    def guest_exits(self) -> int:
        """The same, without the times that it was kicked."""
        return self._unrouted_exits + self._exits(self._routes) + self._exits(self._mmio_routes)

    @property
    def mmio_exits(self) -> int:
        """How often it was for a memory-mapped access."""
        return self._other_mmio_exits + self._exits(self._mmio_routes)

    @property
    def recent(self) -> list[tuple[Access, int | None]]:
        """The last accesses that were made, the newest last, with the values that were read or written: None
        for a string instruction. The loop must have ended, or be parked.
        """
        return list(self._recent)

    def _remember_with_rip(self, made: tuple[Access, int | None]) -> None:
        self.last_rip = self._vcpu.words64[_SYNC_RIP]
        self._recent.append(made)

    @property
    def unclaimed_exits(self) -> int:
        """How often it was for a port that no device claims."""
        return self._unclaimed_exits + sum(self._exits_of(self._routes, key) for key in self._unclaimed)

    @property
    def port_exits(self) -> dict[int, int]:
        """Exits by packed word (direction, size, port), claimed ports only."""
        counts = dict(self._other_port_exits)
        for word in [word for word in list(self._routes) if word not in self._unclaimed]:
            counts[word & _ACCESS] = counts.get(word & _ACCESS, 0) + self._exits_of(self._routes, word)
        return counts

    def _exits_of(self, routes: dict[int, list[Any]], key: int) -> int:
        """How many exits took the route of `key`."""
        exits: int = routes[key][0]
        return exits

    def _exits(self, routes: dict[int, list[Any]]) -> int:
        # A copy of the keys in one step, as the vCPU thread may add one meanwhile.
        return sum(self._exits_of(routes, key) for key in list(routes))

    def run(self) -> LoopEnd:
        """Run the guest until something ends it. Raises DeviceProcessError, UnknownExitError."""
        try:
            end = self._run()
            if self.outcome is not None:
                # Before the drain, which may wait for another vCPU: that one may wait for this decision.
                self._decide(self.outcome)
            if self._ring is not None:
                self._ring.drain()
            return end
        finally:
            for routes in (self._routes, self._mmio_routes):
                for key, route in routes.items():
                    route[_DEVICE].count(route[_IS_READ], self._exits_of(routes, key))

    def _run(self) -> LoopEnd:
        vcpu, ring = self._vcpu, self._ring
        enter, remember = self._enter, self._remember
        words32, words64, data = vcpu.words32, vcpu.words64, vcpu.bytes
        routes, mmio_routes = self._routes, self._mmio_routes
        while True:
            status = enter()
            if status == 0:
                reason = words32[_EXIT_REASON]
                if reason == _KVM_EXIT_IO:
                    route = routes.get(words64[_IO_WORD])
                    position = words64[_IO_DATA_OFFSET]
                elif reason == _KVM_EXIT_MMIO:
                    kind = words64[_MMIO_KIND] & MMIO_KIND_MASK
                    route = mmio_routes.get(words64[_MMIO_ADDRESS] << MMIO_KIND_BITS | kind)
                    position = _MMIO_DATA
                else:
                    route, position = None, 0
                if route is not None:
                    route[0] += 1
                    _, access, word, offset, limit, size, is_read, guarded, device, what, steady = route
                    value = 0
                    waits = guarded and words64[RING_WORD] % _SAME_HALVES  # the ring is not empty
                    known = None
                    if steady is not None and steady.entries:
                        known = _known_value(steady, word, offset, device, ring if waits else None)
                    if known is None and waits:
                        assert ring is not None
                        if is_read:
                            word, value = ring.carry_along(device, word)
                        else:
                            ring.drain()
                    if is_read:
                        value = access(word, offset, value, limit) if known is None else known
                        if size == 1:
                            data[position] = value
                        else:
                            data[position : position + size] = value.to_bytes(size, "little")
                    elif size == 1:
                        value = data[position]
                        access(word, offset, value, 0)
                    else:
                        value = int.from_bytes(data[position : position + size], "little")
                        access(word, offset, value, 0)
                    remember((what, value))
                elif reason == _KVM_EXIT_IO:
                    self._port_exit(words64[_IO_WORD], position)
                elif self._rare_exit():
                    return LoopEnd.DECIDED
            elif status < 0:
                self._no_exit(get_errno())
            if self._attention:
                # KVM_RUN that was interrupted has completed the exit before; after an exit it is still to do.
                if self._pay_attention(settled=status < 0):
                    return LoopEnd.LEFT
                enter = self._enter_and_tell if self.tells_next_exit else self._enter

    def _no_exit(self, number: int) -> None:
        """KVM_RUN has returned an error. EINTR is a kick. Raises UnknownExitError."""
        if number == errno.EINTR:
            self._interruptions += 1
            self._vcpu.clear_kick()
            return
        self._unrouted_exits += 1
        if number != errno.EAGAIN:
            raise UnknownExitError(f"KVM_RUN failed: {os.strerror(number)}")

    def _enter_and_tell(self) -> int:
        result: int = self._vcpu.enter()
        if result >= 0:
            # In this order: the main thread, once it is woken, must not see the old promise.
            self.tells_next_exit = False
            self._told()
            with self._attention_changed:
                self._attention |= _TOLD
        return result

    # --- Ports -------------------------------------------------------------------------------------------

    def _port_exit(self, word: int, position: int) -> None:
        """A port exit without a route: the first of its kind, a string instruction, or an unclaimed port."""
        if self._ring is not None:
            self._ring.drain()
        what = direction, port, size = _port_access(word)
        is_read, count = direction == "in", word >> 32
        data = self._vcpu.bytes
        if size not in (1, 2, 4) or position + size * count > len(data):
            raise UnknownExitError(f"KVM reports a port exit of {count} × {size} bytes, which cannot be")
        self._unrouted_exits += 1
        mapping = self._ports.find_all(port, size)
        if mapping is None:
            self._unclaimed_exits += 1
            if count == 1 and self._ports.is_unclaimed(port, size):
                self._add_unclaimed(word, what)
        else:
            if count == 1:
                self._add_route(self._routes, word, mapping, what)
            # Without the count, or a string instruction of each length would be an entry of its own.
            word &= _ACCESS
            self._other_port_exits[word] = self._other_port_exits.get(word, 0) + 1
        end = position + size * count
        value = None
        if count == 1 and is_read:
            value = self._ports.read(port, size)
            data[position:end] = value.to_bytes(size, "little")
        elif count == 1:
            value = int.from_bytes(data[position:end], "little")
            self._ports.write(port, size, value)
        elif is_read:
            data[position:end] = self._ports.read_string(port, size, count)
        else:
            self._ports.write_string(port, size, bytes(data[position:end]))
        self._remember((what, value))

    def _add_route(self, routes: dict[int, list[Any]], key: int, mapping: Mapping, what: Access) -> None:
        direction, address, size = what
        is_read = direction in ("in", "read")
        direct = mapping.direct
        is_whole = mapping.takes_whole(address, size)
        if direct is None or len(routes) >= MAX_ROUTES or not (is_whole or direct.at_once):
            return
        device = direct if is_whole else direct.in_bytes(size)
        access, request, limit, steady = device.fast_path(is_read, size)
        # A write must not overtake any other. What a read can see is only in its own process.
        shared = self._ring is not None and self._ring.shares_process_with(device)
        routes[key] = [
            0,
            access,
            request,
            mapping.register(address),
            limit,
            size,
            is_read,
            self._ring is not None and (shared or not is_read),
            device,
            what,
            steady,
        ]

    def _add_unclaimed(self, key: int, what: Access) -> None:
        """Give a port that nobody has a route, too; so many at most, as a guest may try all ports."""
        if len(self._unclaimed) >= MOST_UNCLAIMED:
            return
        self._unclaimed.add(key)
        direction, _, size = what
        limit = (1 << 8 * size) - 1
        # Dropped or all ones: no earlier write can make a difference.
        ports = UnclaimedPorts(self._ports, size)
        self._routes[key] = [0, nobody, 0, 0, limit, size, direction == "in", False, ports, what, None]

    # --- Everything else ---------------------------------------------------------------------------------

    def _rare_exit(self) -> bool:
        """Any other exit than a port exit. Return whether the exit ends the run."""
        self._unrouted_exits += 1
        if self._ring is not None:
            self._ring.drain()
        found = exits.decode_exit(self._vcpu.bytes)
        if self._met is not None:
            answer = self._met(found)
            # Asked to leave meanwhile, the loop does so, whatever the exit was.
            if answer == IGNORE or (answer != OTHERS and (self._stand() or answer == STOP)):
                return False
        match found:
            case exits.MmioExit(address, length, is_write, data):
                self._other_mmio_exits += 1
                mapping = self._mmio.find_all(address, length)
                kind = self._vcpu.words64[_MMIO_KIND] & MMIO_KIND_MASK
                what = _memory_access(address, kind)
                if mapping is not None:
                    self._add_route(self._mmio_routes, address << MMIO_KIND_BITS | kind, mapping, what)
                if is_write:
                    value = int.from_bytes(data[:length], "little")
                    self._mmio.write(address, length, value)
                else:
                    value = self._mmio.read(address, length)
                    start = uapi.RUN_MMIO_DATA
                    self._vcpu.bytes[start : start + length] = value.to_bytes(8, "little")[:length]
                self._remember((what, value))
                return False
            case exits.IntrExit() | exits.HltExit():
                reason = self._vcpu.words32[_EXIT_REASON]
                self.other_exits[reason] = self.other_exits.get(reason, 0) + 1
                return False
            case exits.ShutdownExit():
                self.outcome = Outcome(
                    GUEST_CRASHED,
                    "the guest crashed: triple fault" + ("" if self._name is None else f" of {self._name}"),
                    error=True,
                    hint="an exception could not be delivered: look at RIP, CR2 and the IDT below",
                    report=self._named(crash_report(self._vcpu, self._read_memory)),
                )
                return True
            case exits.InternalErrorExit():
                error = internal_error(found, self._vcpu, self._read_memory, is_pvm=self._is_pvm)
                first, _, report = str(error).partition("\n")
                raise UnknownExitError(f"{first}\n{self._named(report)}", hint=error.hint)
            case _:
                report = crash_report(self._vcpu, self._read_memory)
                raise UnknownExitError(f"{exits.describe(found)}\n{self._named(report)}")

    def _stand(self) -> bool:
        """Stand still until `go_on` and `unpark`, for the debugger. Return whether the loop is to leave."""
        self._stopped = True
        # KVM has nothing to complete: the exit was between two instructions, or the guest's end.
        self._vcpu.clear_kick()
        while True:
            with self._attention_changed:
                if self._attention & LEAVE:
                    return True
                if not self._stopped:
                    return False
                self.parked = True
            self._told()
            with self._attention_changed:
                self._attention_changed.wait_for(lambda: not self.parked or self._attention & LEAVE)

    def _named(self, report: str) -> str:
        return report if self._name is None else f"{self._name}\n{report}"

    def _pay_attention(self, *, settled: bool) -> bool:
        """Handle a request for attention. Return whether the loop must end.

        The loop parks, and is observed, only when it is `settled`: when KVM has completed the instruction of
        the last exit, so that the registers and memory are those of a moment between two instructions.
        """
        # In this order: a request that comes after the clearing kicks again, one before it is seen now.
        self._vcpu.clear_kick()
        if settled and self._accessed is not None:
            self._show(self._accessed)
        while True:
            with self._attention_changed:
                flags = self._attention
                if not settled and flags & (PARK | OBSERVE) and not flags & LEAVE:
                    # The next KVM_RUN completes the exit, and returns before any guest code (api.rst, 5).
                    self._vcpu.immediate_exit = True
                    self.paused_in_access = True
                    self._accessed = self._access_of_exit() if flags & OBSERVE else None
                    return False
                if not flags & PARK or flags & LEAVE:
                    self._attention, self.parked = flags & OBSERVE, False
                    self.paused_in_access = False
                    return bool(flags & LEAVE)
                self.parked = True
            self._told()
            with self._attention_changed:
                self._attention_changed.wait_for(lambda: not self.parked or self._attention & LEAVE)
            self.tells_next_exit = True

    def _show(self, accessed: Access) -> None:
        """KVM has completed this exit: show it to the observer."""
        self._accessed = None
        self._interruptions -= 1  # KVM_RUN has returned for the observer alone
        with self._attention_changed:
            self._attention &= ~OBSERVE
        # Another thread may request OBSERVE again as soon as the observer has had enough.
        if self._observer is not None and self._observer(accessed):
            with self._attention_changed:
                self._attention |= OBSERVE

    def _access_of_exit(self) -> Access | None:
        words64 = self._vcpu.words64
        reason = self._vcpu.words32[_EXIT_REASON]
        if reason == _KVM_EXIT_IO:
            return _port_access(words64[_IO_WORD])
        if reason == _KVM_EXIT_MMIO:
            return _memory_access(words64[_MMIO_ADDRESS], words64[_MMIO_KIND])
        return None
