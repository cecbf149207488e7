"""The board of `kvmbox run` without a CPU: memory, two buses, interrupt lines, and a controlled clock.

Only `advance_to` advances time. Every deadline of every device in between fires in order, each at its own
time, so that interrupt lines change at the right times. If no client watches the lines, only their last level
matters. Then the models are advanced once, which takes as long for a nanosecond as for a century.

If a request leaves a deadline at or before the present time, the deadline fires before the request is done. A
transfer or a reset that a device asks for also happens at this time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Stores
from functools import partial

from kvmbox.base.errors import ProtocolError
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.device_spec import Aperture, DeviceSpec, Medium, Queues, Resource
from kvmbox.contract.model import DONE
from kvmbox.host.disk.transfers import BytesStore, Errand, Order, Settle, Store, perform
from kvmbox.host.interrupt_lines import InterruptRouter
from kvmbox.remote.bus.machine_buses import Buses
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.deadlines import REPLY_SLICES
from kvmbox.remote.channel.effect_calls import CanWait, FollowUp
from kvmbox.remote.channel.grants import Grants, bind
from kvmbox.remote.published.guest_memory import Submit, settled
from kvmbox.remote.published.medium import MediumAccess, medium_store
from kvmbox.remote.published.queue_kinds import queues_of
from kvmbox.tools.qtest.qtest_host import OF_PCI, QtestHost, VgaWindow
from kvmbox.wire import protocol
from kvmbox.wire.protocol import NO_DEADLINE, request_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.remote.published.queues import DeviceQueues

WIDE_ACCESSES = (2, 4, 8)
"""Sizes beyond a byte that a device on the memory bus may take at once."""

MAX_TRANSFERS = 4096
"""How many transfers one request may cause, those that follow from others included."""

_ADVANCE = request_word(protocol.ADVANCE, 0, 0)


class BareMachine:
    """Devices, memory and virtual time. `irq_changed(line, level)` hears of each level change."""

    def __init__(
        self,
        board: Sequence[DeviceSpec],
        memory: GuestMemory,
        irq_changed: Callable[[int, int], None],
        stores: Stores[str, Store] | None = None,
    ) -> None:
        """Build the buses; the devices answer once `connect` was called for each device type.

        `stores` are the resources of the host that devices were granted, by name.
        """
        self.now = 0
        """Virtual time in ns."""
        self.watched = False
        """Whether anybody sees the interrupt lines: `advance_to` then fires each deadline by itself."""
        self._board = board
        self._memory = memory
        self._channels: list[Channel] = []
        self._router = InterruptRouter()
        self._router.attach(irq_changed)
        self._buses = Buses(board, memory, self._router.source)
        self._window = VgaWindow(memory)
        self._claims = [
            (piece.start, piece.end, True) for piece in memory.pieces if piece.start != self._window.first
        ]
        """(first, end, whether it is RAM) of all else that answers at an address; nothing overlaps."""
        if self._buses.fabric is not None:
            self._claims.append(OF_PCI)
        memory.show_video = lambda video: self._claims.extend((one.start, one.end, True) for one in video)
        self._unsettled = False
        self._reset_wanted = False
        self._stores = stores or {}
        self._orders: deque[Order | Errand] = deque()
        self._places: dict[str, tuple[Channel, int]] = {}

    # --- Building -------------------------------------------------------------------------------------

    def grants(self) -> dict[str, Grants]:
        """What the devices may do, by name."""
        router = self._router
        granted = self._transfers, self._medium, self._queues, self._buses, self._window.check
        host = QtestHost(router.source, router.replacing_source, self._ask_for_reset, self._memory, *granted)
        return {device.name: bind(device, host) for device in self._board}

    def clock(self) -> int:
        """Virtual time, for the channels."""
        return self.now

    def deadline_changed(self, _device_type: str, deadline: int, now: int) -> None:
        """A reply told a new deadline, for the channels."""
        if deadline <= now:
            self._unsettled = True

    def connect(self, channel: Channel, devices: Sequence[DeviceSpec]) -> None:
        """The devices of one channel, in index order, answer from now on."""
        self._channels.append(channel)
        for index, device in enumerate(devices):
            self._places[device.name] = channel, index
            proxy = DeviceProxy.of(channel, index, device)
            self._buses.attach(device, proxy, proxy)
            if not device.granted(Aperture):
                self._claims += [(r.first, r.first + r.count, False) for r in device.mmio]

    # --- Accesses. All raise DeviceProcessError -------------------------------------------------------

    def read_port(self, port: int, size: int) -> int:
        """`size` bytes at `port`."""
        value = self._buses.ports.read(port, size)
        self._settle()
        return value

    def write_port(self, port: int, size: int, value: int) -> None:
        """`size` bytes at `port`."""
        self._buses.ports.write(port, size, value)
        self._settle()

    def read_memory(self, address: int, size: int) -> bytes:
        """`size` bytes at a physical address: RAM, devices, all ones where there is neither.

        A device gets an access of 2, 4 or 8 bytes as one, where its registers have that size, any other one
        byte by byte.
        """
        data = bytearray(b"\xff") * size
        for start, length, is_ram in self._claimed(address, size):
            if is_ram:
                piece = self._memory.read(start, length)
            else:
                step = length if length in WIDE_ACCESSES else 1
                piece = b"".join(
                    self._buses.mmio.read(position, step).to_bytes(step, "little")
                    for position in range(start, start + length, step)
                )
            data[start - address : start - address + length] = piece
        self._settle()
        return bytes(data)

    def write_memory(self, address: int, data: bytes) -> None:
        """Bytes to a physical address, as `read_memory` reads them."""
        for start, length, is_ram in self._claimed(address, len(data)):
            piece = data[start - address : start - address + length]
            if is_ram:
                self._memory.write(start, piece)
            else:
                step = length if length in WIDE_ACCESSES else 1
                for position in range(0, length, step):
                    value = int.from_bytes(piece[position : position + step], "little")
                    self._buses.mmio.write(start + position, step, value)
        self._settle()

    def fill_memory(self, address: int, size: int, value: int) -> None:
        """`size` bytes of `value`."""
        for start, length, is_ram in self._claimed(address, size):
            if is_ram:
                self._memory.fill(start, length, value)
            else:
                for position in range(start, start + length):
                    self._buses.mmio.write(position, 1, value)
        self._settle()

    def _claimed(self, address: int, size: int) -> list[tuple[int, int, bool]]:
        """What of [address, address + size) answers, as (start, length, whether it is RAM).

        The rest of a range costs nothing, however large it is.
        """
        pieces = []
        window = self._window.first, self._window.end, self._window.is_ram
        for first, end, is_ram in (*self._claims, window):
            start, stop = max(address, first), min(address + size, end)
            if start < stop:
                pieces.append((start, stop - start, is_ram))
        return pieces

    # --- Time -----------------------------------------------------------------------------------------

    def next_deadline(self) -> int | None:
        """When a device is due next, in ns, or None."""
        deadline = min((channel.deadline for channel in self._channels), default=NO_DEADLINE)
        return None if deadline == NO_DEADLINE else deadline

    def advance_to(self, target: int) -> None:
        """Let time pass to `target`, which is not before the present. Raises DeviceProcessError."""
        while self.watched:
            deadline = self.next_deadline()
            if deadline is None or deadline > target:
                break
            self.now = max(self.now, deadline)
            self._fire()
        self.now = target
        self._fire()
        self._settle()

    def _fire(self) -> None:
        """Advance every channel that is due, in board order."""
        for channel in self._channels:
            if channel.deadline <= self.now:
                channel.access(_ADVANCE, 0, 0, 0)
                if channel.deadline <= self.now:
                    # Told the time it has nothing left to do: this breaks the protocol, and says so.
                    channel.request(protocol.ADVANCE)

    def _settle(self) -> None:
        """Nothing that is due at the present is left, nor a transfer or a reset that was asked for."""
        if self._orders:
            self._move()
        if self._reset_wanted:
            self._reset_wanted = False
            self.reset()
        if self._unsettled:
            self._unsettled = False
            self._fire()

    # --- Transfers ------------------------------------------------------------------------------------

    def _transfers(self, name: str, grant: Resource) -> Submit:
        store = self._stores[grant.name]

        def submit(tag: int, offset: int, ranges: Sequence[tuple[int, int]], to_guest: bool) -> bool:
            if sum(order.device == name for order in self._orders) >= grant.max_pending:
                return False
            self._orders.append(Order(name, tag, store, grant.size, offset, ranges, to_guest))
            return True

        return submit

    def _move(self) -> None:
        """Do the transfers that were asked for, and those that are asked for when a device hears of one."""
        moved = 0
        while self._orders:
            order = self._orders.popleft()
            channel, index = self._places[order.device]
            moved += 1
            if moved > MAX_TRANSFERS:
                what = f"broke the protocol: {order.device} asks for transfers without end"
                raise channel.fail(ProtocolError(channel.device_type, what))
            channel.serve(partial(self._done, index, order), REPLY_SLICES)

    def _done(self, index: int, order: Order | Errand) -> Sequence[FollowUp | CanWait]:
        """Do it; what tells device number `index`. Under the lock of its channel."""
        if isinstance(order, Order):
            return settled(index, order.tag, perform(order, self._memory), None)
        return settled(index, order.tag, order.work(), order.settle)

    def _medium(self, name: str, grant: Medium) -> MediumAccess:
        def submit(tag: int, work: Callable[[], int], settle: Settle | None) -> bool:
            self._orders.append(Errand(name, tag, work, settle))
            return True

        return MediumAccess(
            grant, medium_store(self._stores[grant.name] if grant.size else BytesStore(b"")), submit
        )

    def _queues(self, name: str, grant: Queues) -> DeviceQueues:
        def come_by(settle: Settle) -> bool:
            self._orders.append(Errand(name, 0, lambda: DONE, settle))
            return True

        return queues_of(grant, self._memory, come_by)

    # --- Reset ----------------------------------------------------------------------------------------

    def _ask_for_reset(self) -> None:
        # Called inside of a request: the reset is a request, too, and must wait until this one is done.
        self._reset_wanted = True

    def reset(self) -> None:
        """The machine's reset line. Time goes on, memory stays. Raises DeviceProcessError."""
        self._orders.clear()
        self._window.reset()
        for channel in self._channels:
            channel.request(protocol.RESET)
        self.power_on()

    def power_on(self) -> None:
        """All devices answer: what decodes where after a reset does so."""
        if self._buses.fabric is not None:
            self._buses.fabric.power_on()
