"""The boots of one run, one after the other: from the first one to the end, by resets and suspensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kvmbox.base.errors import KvmboxError
from kvmbox.base.memory import GuestMemory
from kvmbox.base.outcome import Outcome
from kvmbox.base.value_classes import Value
from kvmbox.boot.plan import BootPlan
from kvmbox.kvm.system import Kvm
from kvmbox.run.machine.boot_source import BootSource
from kvmbox.run.machine.device_set import Devices
from kvmbox.run.machine.guest_vm import GuestVm
from kvmbox.wire import protocol

if TYPE_CHECKING:
    from kvmbox.base.judge import Judge
    from kvmbox.run.loop.main_loop import MainLoop
    from kvmbox.run.machine.guest_vm import SavedState
    from kvmbox.run.machine.start_state import Origin


def close_unused(close: Callable[[], None], users: Sequence[Callable[[], bool]]) -> None:
    """Close what is unmapped by that, unless a thread that does not end still uses it: then the end of the
    process unmaps it.
    """
    if not any(uses() for uses in users):
        close()


class GuestFactory(Value):
    """What a reboot needs to build the next virtual machine on the same memory."""

    kvm: Kvm
    memory: GuestMemory
    source: BootSource
    cpus: int
    cpu: str
    waits: bool

    def first(self, origin: Origin) -> GuestVm:
        """A VM as the origin has it, in memory that is the origin's."""
        plan = origin.plan
        return self.build() if plan is None else self._start(BootSource(lambda _memory: plan), origin.state)

    def build(self) -> GuestVm:
        """A VM with the image loaded, in memory that is all zero."""
        return self._start(self.source)

    def resume(self, plan: BootPlan) -> GuestVm:
        """A fresh VM on the memory as it is, which starts as `plan` says."""
        return self._start(BootSource(lambda _memory: plan))

    def _start(self, source: BootSource, state: SavedState | None = None) -> GuestVm:
        return GuestVm(
            self.kvm, self.memory, source, cpus=self.cpus, cpu=self.cpu, waits=self.waits, state=state
        )


def boot_until_end(
    guest: GuestVm, factory: GuestFactory, devices: Devices, main_loop: MainLoop, judge: Judge
) -> None:
    """Run the guest, and again after each reset and each suspension, until the outcome is decided.

    Raises DeviceProcessError.
    """
    while True:
        try:
            devices.router.attach(guest.vm.irq_line, guest.vm.fileno(), are_set=guest.lines_are_set)
            if devices.pci is not None:
                from kvmbox.run.machine.pci_setup import plug

                plug(devices.pci, guest.vm, is_fresh=not guest.lines_are_set)
            if guest.boot.after_bios:
                from kvmbox.run.machine.bios_chip_setup import start_timer

                start_timer(devices.pool)
            if guest.boot.video is not None:
                from kvmbox.run.display.start_mode import set_mode

                set_mode(devices, guest.boot.video)
            again = main_loop.run_until_reset(guest)
            main_loop.standstill.slice()  # once more: the memory of this boot may be cleared
        finally:
            devices.router.detach()
            if devices.pci is not None:
                devices.pci.attach(None)
            close_unused(guest.close, [lambda: main_loop.has_live_vcpu])
        if not again or judge.outcome is not None:
            return
        suspension = main_loop.ends.suspension
        if suspension is None:
            _reset(devices, factory.memory)
            factory.memory.clear()
            guest = factory.build()
            continue
        from kvmbox.run.machine.suspend import report_wake_up, sleep_until_woken, waking_plan

        if not sleep_until_woken(suspension, devices, judge, main_loop.sleep):
            return
        _reset(devices, factory.memory)
        report_wake_up(suspension, devices)
        plan = waking_plan(factory.memory, guest.boot)
        if isinstance(plan, Outcome):
            judge.ends(plan)
            return
        guest = factory.resume(plan)


def _reset(devices: Devices, memory: GuestMemory) -> None:
    """Reset all devices, and show RAM where the frame buffer was in its place. Raises DeviceProcessError."""
    # What was asked for before the reset must not reach the memory of the next boot.
    if devices.transfers is not None and not devices.transfers.quiesce():
        raise KvmboxError("a transfer of a device does not end: its file does not answer")
    for channel in devices.pool.channels:
        channel.request(protocol.RESET)
    if devices.shims is not None:
        devices.shims.reset()
    if memory.video:
        from kvmbox.host.frame_buffer import show_window

        show_window(memory, None)
