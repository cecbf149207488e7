"""The window of a VGA in guest memory: taken out of it, and put back, while the guest runs.

The window is a memory slot of its own (`GuestMemory.pieces`). While it is plain memory, nothing here is
loaded.

Out: a register write of the guest has taken away the way in which the window could be plain. The effect comes
in the reply to this write. The thread that has it deletes the slot, so that accesses exit from then on, and
sends the bytes that were there, under the lock of the channel: an access of another vCPU waits for that.

Back: the device says that the window may be plain again. That can wait until all vCPUs stand still, when no
access is on its way. The main thread then asks the device for its state, and a model of its own says which
bytes are in the window. So a process that lies fills this window with bytes of its choice, and no more.

While the window is out, KVM coalesces writes to it, and to the ports of the registers behind it: what they
mean nobody sees before the next read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmbox.base import layout
from kvmbox.base.errors import ProtocolError
from kvmbox.base.memory import WINDOW_SLOT
from kvmbox.contract.model import DONE, SnapshotError
from kvmbox.contract.names import VGA
from kvmbox.devices.vga.model import VgaText
from kvmbox.remote.channel.model_state import take_state
from kvmbox.remote.channel.vga_window import allowed, count_of, pieces
from kvmbox.run.display.deferred_writes import VgaWrites
from kvmbox.run.display.text_memory import place_of
from kvmbox.run.loop.vcpu_pause import Visitor
from kvmbox.wire import protocol

if TYPE_CHECKING:
    from kvmbox.contract.model import Effect
    from kvmbox.remote.channel.effect_calls import Application, FollowUp
    from kvmbox.run.loop.main_loop import MainLoop
    from kvmbox.run.loop.periodic_checks import Watch
    from kvmbox.run.loop.vcpu_pause import VcpuPause
    from kvmbox.run.machine.device_set import Devices
    from kvmbox.run.machine.one_boot import Boot

FIRST: Final = layout.VGA_MEMORY
SIZE: Final = layout.VGA_MEMORY_SIZE
_PORTS_OUT: Final = ((0x3C4, 2), (0x3CE, 2))
"""Sequencer and graphics controller: writes to them may be late while the window is out, and only then."""
_PORTS_ALWAYS: Final = ((0x3C8, 2),)
"""Index and data of the DAC, to which no access to memory has a relation."""


def window_of(loop: MainLoop, devices: Devices) -> Aperture:
    """The window of a machine. Under the lock of the VGA's channel, or before the machine runs."""
    for visitor in loop.standstill.visitors:
        if isinstance(visitor, Aperture):
            return visitor
    return Aperture(devices, loop.standstill, loop.watch)


class Aperture(Visitor):
    """The window of one machine. `check` on any thread; the rest belongs to the main loop."""

    def __init__(self, devices: Devices, standstill: VcpuPause, watch: Watch) -> None:
        """`watch` knows the present boot, and delivers coalesced writes."""
        self._devices = devices
        self._standstill = standstill
        self._flush = watch.flush_writes
        self._boot = watch.boot
        self._is_out = False
        self._may_return = False
        self._is_registered = False
        """Whether KVM coalesces, in this boot, what it does so to its end once the window was out."""
        self._hides_at_start = False
        self._proxy = next(one for one in devices.proxies if one.name == VGA)
        standstill.admit(self)

    def check(self, index: int, effect: Effect) -> Application | None:
        """What the effect of device number `index` calls; None if it is not granted."""
        wanted = allowed(effect)
        if wanted is None:
            return None
        if wanted.is_plain:
            return self._offer, (), 0
        return self._take_out, (index, wanted.address, wanted.size), count_of(wanted.size)

    # --- Out ------------------------------------------------------------------------------------------------

    def _take_out(self, index: int, address: int, size: int) -> list[FollowUp]:
        self._may_return = False
        if self._boot is None:
            return []
        self._hide(self._boot)
        return pieces(index, self._boot.guest.memory.read(address, size))

    def _hide(self, boot: Boot) -> None:
        if self._is_out:
            return
        boot.guest.vm.set_user_memory_region(WINDOW_SLOT, FIRST, 0, 0)
        self._is_out = True
        ring = boot.ring
        zones = self._devices.coalesced | self._devices.late_ports
        if ring is not None and self._is_coalesced:
            vcpu = boot.guest.vcpus[0]
            ports = (*_PORTS_OUT, *_PORTS_ALWAYS)
            ring.open_window(VgaWrites(self._proxy, ports, zones, vcpu.words64, vcpu.words32))
            for port, count in _PORTS_OUT if self._is_registered else ports:
                boot.guest.vm.register_coalesced(port, count, pio=True)
            if not self._is_registered:
                boot.guest.vm.register_coalesced(FIRST, SIZE, pio=False)
            self._is_registered = True  # again would be a zone more each time, of which KVM has 1000

    def resume(self) -> None:
        """The machine goes on where it was saved: the window is out if the device says so."""
        vga = self._state()
        self._is_out = False
        self._hides_at_start = vga is not None and vga.window.plain is None

    def boot_begins(self, boot: Boot) -> None:
        """See `Visitor`. A new virtual machine has the window in memory."""
        self._boot, self._is_out, self._may_return, self._is_registered = boot, False, False, False
        if self._hides_at_start:
            self._hides_at_start = False
            self._hide(boot)

    def boot_ends(self, boot: Boot, end: object) -> None:
        """See `Visitor`."""
        self._boot = None

    @property
    def _is_coalesced(self) -> bool:
        """Whether writes to the VGA may be late: not where something stands between it and the guest."""
        return any(proxy is self._proxy for proxy, _ in self._devices.coalesced.values())

    # --- Back -----------------------------------------------------------------------------------------------

    def _offer(self) -> None:
        self._may_return = True
        self._standstill.call()

    @property
    def wants(self) -> bool:
        """See `Visitor`."""
        return self._may_return

    def visit(self) -> None:
        """See `Visitor`. Raises DeviceProcessError, KvmError."""
        boot, ring = self._boot, None if self._boot is None else self._boot.ring
        self._flush()
        if ring is not None and ring.pending:
            return  # output has no room: another time
        self._may_return = False
        vga = self._state()
        if boot is None or vga is None or not self._is_out or (found := vga.window.offered) is None:
            return
        address, data = found
        guest = boot.guest
        if not guest.memory.shows_video:  # else a linear mode is on, whose dots are there
            guest.memory.write(address, data)
        if ring is not None and self._is_coalesced:
            for port, count in _PORTS_OUT:
                guest.vm.unregister_coalesced(port, count, pio=True)
        piece = guest.memory.pieces[WINDOW_SLOT]
        guest.vm.set_user_memory_region(WINDOW_SLOT, FIRST, SIZE, piece.host_address)
        self._is_out = False
        channel, index = place_of(self._devices.pool)
        channel.request(protocol.COMPLETE, device=index, value=DONE << 32)

    def _state(self) -> VgaText | None:
        """The device as its process tells it; None if that has not started, or is lost."""
        channel, index = place_of(self._devices.pool)
        state = take_state(channel, index) if channel.is_started else b""
        vga = VgaText()
        try:
            if state:
                vga.restore(state)
        except SnapshotError as error:
            name = channel.device_type
            raise channel.fail(ProtocolError(name, f"broke the protocol: {error}")) from error
        return vga if state else None
