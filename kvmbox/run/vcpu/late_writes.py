"""Registers whose writes may be late at times, and the ports that KVM coalesces because of that.

A UART whose interrupts are off can take a character at any time before the guest's next access to the UART:
nobody sees the difference. So the model tells by an effect when writes to THR may be late
(`contract.model.LateWrites`). A model that lies delays its own output, and no more: the order of writes
stays, and the ring is drained before every access that could see one missing.

Registering a port with KVM takes 3 to 7 µs. Taking it back takes 15 to 25 µs alone, and 2 to 12 ms soon after
another time (measured). A driver may switch the interrupt off and on around each character, as Linux does on
its console. So:

- The main thread registers a port at the end of a slice in which at least `BUSY_WRITES` writes to it have
  exited, all of them while they might have been late. Compiled code puts such writes into the ring itself:
  it has the port registered after `MOST_POSTED` of them, if the port does not rest.
- The thread that hears that writes must not be late takes the port back at once, before the guest goes on.
- The port then rests: for `FIRST_REST` slices after the first time, for twice as many after each further one,
  and for `LONGEST_REST` at most.

With several vCPUs, a write of another vCPU may be in the ring when its port is taken back. The write is
delivered at the next exit of any vCPU, or at the end of the slice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvmbox.kvm.vm import Vm
    from kvmbox.run.vcpu.coalesced_ring import CoalescedRing

BUSY_WRITES: Final = 64
FIRST_REST: Final = 20
LONGEST_REST: Final = 1200

_BYTE_OUT: Final = 1 | 1 << 8  # direction and size in the packed word of a port exit
_PORT_SHIFT: Final = 16


class _Port:
    def __init__(self, number: int) -> None:
        self.number = number
        self.allowed, self.coalesced = True, False
        self.exits, self.revoked = 0, False  # of writes, when it was looked at last; since then
        self.rest, self.next_rest = 0, FIRST_REST  # slices to wait


class LateWrites:
    """The ports of one machine whose writes may be late at times. The main thread calls `attach` and
    `slice_over`.
    """

    def __init__(self, *, exact: bool = False) -> None:
        """With `exact`, all writes exit. What the devices say is noted: a snapshot has to know it."""
        self._exact = exact
        self._ports: list[_Port] = []
        self._allowed: dict[int, int] = {}  # by port that always exits: whether its writes might be late
        self._lock = threading.Lock()  # taken last: a thread with it takes no other
        self._vm: Vm | None = None
        self._ring: CoalescedRing | None = None

    def add(self, port: int) -> Callable[[int], None]:
        """Watch a port. The result hears whether writes to it may be late: see `model.LateWrites`. Any thread
        may call it, under the lock of the device's channel.
        """
        if self._exact:
            return lambda allowed: self._allowed.update({port: allowed})
        watched = _Port(port)
        self._ports.append(watched)
        return lambda allowed: self._allow(watched, allowed)

    def attach(self, vm: Vm, ring: CoalescedRing | None, forbidden: Collection[int] = ()) -> None:
        """A virtual machine was built, with its ring, or with none where every write exits. Its devices are
        as after a reset, where writes may be late, unless their ports are among `forbidden`.
        """
        with self._lock:
            self._vm, self._ring = vm if ring is not None else None, ring
            self._allowed = {} if ring is not None else dict.fromkeys(forbidden, 0)
            for port in self._ports:
                port.allowed = port.number not in forbidden
                port.coalesced, port.revoked, port.exits = False, False, 0
                if self._ring is not None:
                    self._ring.be_busy = self._be_busy
                    self._ring.let_post(port.number, port.allowed)

    @property
    def forbidden(self) -> tuple[int, ...]:
        """The ports whose writes must not be late now."""
        with self._lock:
            exact = (port for port, allowed in self._allowed.items() if allowed != 1)
            return tuple({*exact, *(port.number for port in self._ports if not port.allowed)})

    def detach(self) -> None:
        """The virtual machine is about to be closed."""
        with self._lock:
            self._vm = self._ring = None

    def slice_over(self, exits: Callable[[], Mapping[int, int]]) -> None:
        """A slice is over. `exits` counts exits by packed (direction, size, port) word. Raises KvmError."""
        if all(port.coalesced for port in self._ports):
            return
        counts = exits()
        with self._lock:
            if self._vm is None:
                return
            for port in self._ports:
                before, port.exits = port.exits, counts.get(_BYTE_OUT | port.number << _PORT_SHIFT, 0)
                revoked, port.revoked = port.revoked, False
                if port.rest:
                    port.rest -= 1
                elif port.allowed and not revoked and port.exits - before >= BUSY_WRITES:
                    self._coalesce(port)

    def _coalesce(self, port: _Port) -> None:
        if self._vm is not None and not port.coalesced:
            self._vm.register_coalesced(port.number, 1, pio=True)
            port.coalesced = True

    def _be_busy(self, number: int) -> None:
        with self._lock:
            for port in self._ports:
                if port.number == number and port.allowed and not port.rest:
                    self._coalesce(port)

    def _allow(self, port: _Port, allowed: int) -> None:
        with self._lock:
            ring, port.allowed = self._ring, allowed == 1
            port.revoked = port.revoked or not port.allowed
            if port.coalesced and not port.allowed and self._vm is not None:
                self._vm.unregister_coalesced(port.number, 1, pio=True)
                port.coalesced = False
                port.rest, port.next_rest = port.next_rest, min(2 * port.next_rest, LONGEST_REST)
        if ring is not None:
            ring.let_post(port.number, allowed)
