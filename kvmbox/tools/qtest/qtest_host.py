"""What qtest does for devices: see `remote.channel.grants.Host`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmbox.base import layout
from kvmbox.base.memory import WINDOW_SLOT, GuestMemory
from kvmbox.base.value_classes import Value
from kvmbox.contract.device_spec import DeviceSpec, LateWrites, Medium, Queues, Resource
from kvmbox.host.frame_buffer import show_window
from kvmbox.remote.channel.vga_window import allowed, count_of, pieces
from kvmbox.remote.published.data_window import DataWindow

if TYPE_CHECKING:
    from kvmbox.contract.model import Effect
    from kvmbox.remote.bus.machine_buses import Buses
    from kvmbox.remote.channel.effect_calls import Application, FollowUp
    from kvmbox.remote.published.guest_memory import Submit
    from kvmbox.remote.published.medium import MediumAccess
    from kvmbox.remote.published.queues import DeviceQueues


class VgaWindow:
    """The window of a VGA. Once it was taken out of memory it stays out: its accesses mean the same."""

    def __init__(self, memory: GuestMemory) -> None:
        piece = memory.pieces[WINDOW_SLOT]
        self._memory = memory
        self.first, self.end = piece.start, piece.end
        self.is_ram = True
        """Whether it is plain memory."""

    def reset(self) -> None:
        """The machine is reset: RAM is there."""
        self.is_ram = True
        if self._memory.video:
            show_window(self._memory, None)

    def check(self, index: int, effect: Effect) -> Application | None:
        """See `grants.Host.aperture`."""
        wanted = allowed(effect)
        if wanted is None:
            return None
        if wanted.is_plain:
            return (lambda: None), (), 0
        return self._take_out, (index, wanted.address, wanted.size), count_of(wanted.size)

    def _take_out(self, index: int, address: int, size: int) -> list[FollowUp]:
        self.is_ram = False
        return pieces(index, self._memory.read(address, size))


OF_PCI = (layout.FRAME_BUFFER + layout.FRAME_BUFFER_SIZE, layout.PCI_MEMORY_END, False)
"""Where registers of PCI functions may be, if there are some: see `BareMachine`."""


class QtestHost(Value):
    """What qtest does for devices: nobody takes output or sends input, and no run is there to be stopped.

    See `remote.channel.grants.Host`.
    """

    irq_source: Callable[[int], Callable[[int, int], None]]
    replacing_irq_source: Callable[[int], tuple[Callable[[int, int], None], Callable[[int], None]]]
    ask_for_reset: Callable[[], None]
    ram: GuestMemory
    transfers: Callable[[str, Resource], Submit]
    medium: Callable[[str, Medium], MediumAccess]
    queues: Callable[[str, Queues], DeviceQueues]
    buses: Buses
    aperture: Callable[[int, Effect], Application | None]

    def window(self, register: int) -> DataWindow:
        """There is no loop that could look into it."""
        return DataWindow(register)

    def rise_of(self, _line: Callable[[int, int], None]) -> None:
        """Time passes at once here: nothing can be raised before the model tells of it."""

    def output(self, _stream: str) -> Callable[[bytes], None]:
        """The protocol has no word for it."""
        return lambda _data: None

    def input_room(self, _stream: str) -> Callable[[int], None]:
        """Nobody sends input."""
        return lambda _count: None

    def bios_reports(self) -> tuple[Callable[[bytes], None], Callable[[int, int, int], None]]:
        """There is no BIOS on this board."""
        return (lambda _data: None), (lambda _offset, _size, _value: None)

    def late_writes(self, _device: DeviceSpec, _grant: LateWrites) -> Callable[[int], None]:
        """Nothing is late here."""
        return lambda _allowed: None

    def stop(self, value: int | None) -> None:
        """A stop ends a run; here is none."""

    def suspend(self, device: str, wakes: int) -> None:
        """Nothing runs that could be suspended."""

    def panic(self, *, crash_kernel: bool) -> None:
        """As above."""
