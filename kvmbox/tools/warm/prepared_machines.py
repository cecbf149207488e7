"""A machine that a boot process prepares before anybody wants it to run.

    order, told in advance → machine, whose guest could start → wait → look again → run

Everything is prepared that comes before the confinement: the VM with the image in its memory, vCPUs, device
processes that were greeted, the timer as a BIOS leaves it. So little is left to do when the boot is wanted.
The process stays unconfined meanwhile, as one that waits for its order, and confines itself before the guest
starts, as ever.

Nothing may tell the guest, or who wanted it, that it was prepared earlier. Guest time is held, and begins
with the guest. What counts from the creation of a VM is set to zero. The RTC gets the wall clock of that
moment. The files of the boot are read again: if there is anything else in them, the machine is given up, and
the pool has another process boot. This one has parsed what somebody else may have put there.

Only what has no effect on others is prepared (`pool`): nothing is opened for writing, locked or shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from kvmbox.base.errors import KvmboxError
from kvmbox.boot.boot_files import HostFiles
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.process.device_pool import DevicePool
from kvmbox.run.api.machine import find_image
from kvmbox.run.frontend import ProcessOwner
from kvmbox.run.machine.bios_chip_setup import start_timer
from kvmbox.run.machine.guest_vm import GuestVm
from kvmbox.run.options.choices import DEFAULT_RTC_BASE
from kvmbox.run.options.values import rtc_base
from kvmbox.run.part import Standing
from kvmbox.run.result.stage_times import Timeline
from kvmbox.tools.warm.orders import BootOrder

MSR_TSC: Final = 0x10
FAR_TSC: Final = 1 << 48
RTC: Final = "RTC"


class Unprepared(BaseException):
    """There is no prepared machine to run: it was not wanted, or does not fit any more."""


class AheadTimeline(Timeline):
    """One that may start behind some of its stages: they have taken no time."""

    def restart(self, at: int) -> None:
        """It started at `at`, in ns of the monotonic clock."""
        before = at - self.started
        self.stages = {stage: max(0, time - before) for stage, time in self.stages.items()}
        self.started = at


class Ahead(ProcessOwner):
    """Who owns the process of a machine that is prepared ahead."""

    def __init__(self, order: BootOrder, timeline: AheadTimeline, wanted: Callable[[], int | None]) -> None:
        """`wanted` waits until the boot of `order` is wanted: it returns the time from which that counts, in
        ns of the monotonic clock, or None if the boot is not wanted.
        """
        super().__init__()
        self.is_wanted = False
        """Whether it was."""
        self._order = order
        self._timeline = timeline
        self._wanted = wanted

    def stands(self, machine: Standing, guest: GuestVm) -> None:
        """See Caller. Raises Unprepared."""
        if guest.boot.after_bios:
            start_timer(machine.devices.pool)  # guest time is 0 now as it is then
            guest.boot = guest.boot.replaced(after_bios=False)
        at = self._wanted()
        if at is None or not _is_as_before(machine, self._order):
            raise Unprepared
        self._timeline.restart(at)
        machine.loop.ends.started = at
        reset_tsc(guest.vcpus)
        guest.vm.set_clock(0)
        set_rtc(machine.devices.pool, rtc_base(self._order.options.get("rtc_base", DEFAULT_RTC_BASE)))
        self.is_wanted = True


def reset_tsc(vcpus: Sequence[Vcpu]) -> None:
    """Let the TSC of all CPUs begin anew, where the backend lets a guest have its own.

    KVM takes 0, and what lies within a second of the TSC, for an attempt to keep CPUs in step, and goes on.
    So the first CPU gets a value far away, then the wanted one. That is what the others are in step with.
    """
    vcpus[0].set_msrs({MSR_TSC: FAR_TSC})
    for vcpu in vcpus:
        vcpu.set_msrs({MSR_TSC: 1})


def _is_as_before(machine: Standing, order: BootOrder) -> bool:
    """Whether all that the machine was made from is the same, and its device processes live."""
    again = HostFiles()
    try:
        os.chdir(order.directory)  # another one may have that name by now
        if find_image(os.fspath(order.options["image"]))[0] != machine.config.guest:
            return False
        for path in machine.files.kept:
            again.image(path)
    except (KvmboxError, OSError):
        return False
    return again.kept == machine.files.kept and machine.devices.pool.check() is None


def set_rtc(pool: DevicePool, base: int) -> None:
    """Let the RTC, which nobody has used yet, show the wall clock `base` at guest time 0."""
    for name, member in pool.members.items():
        for index, device in enumerate(member.devices):
            if device.name == RTC and device.parameters["base_seconds"] != base:
                parameters = {**device.parameters, "base_seconds": base}
                member.devices[index] = device.replaced(parameters=parameters)
                greet(pool.channel(name), member.devices)
