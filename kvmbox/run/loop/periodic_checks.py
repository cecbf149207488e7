"""The checks that the main thread makes once per slice, and the deadlines of devices that it keeps.

- whether a device process has left a request of a vCPU thread unanswered for too long
(`remote.channel.watchdog`);
- whether no vCPU has exited for a while, so that all vCPUs may be halted for ever;
- whether idle device processes still answer.

`check_interval` decides the length of a slice, and when which check is made.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import DeviceProcessError
from kvmbox.contract.device_spec import Input, Output
from kvmbox.remote.channel.deadlines import WAIT_SLICE_MS, hung_error
from kvmbox.remote.channel.watchdog import Watchdog
from kvmbox.run.loop.check_interval import CheckInterval
from kvmbox.run.vcpu.exit_routes import port_exits
from kvmbox.wire import protocol

if TYPE_CHECKING:
    from kvmbox.base.judge import Judge
    from kvmbox.host.console.serial_ports import Console
    from kvmbox.host.time.deadline_timer import DeadlineTimer
    from kvmbox.run.loop.vcpu_pause import VcpuPause
    from kvmbox.run.machine.device_set import Devices
    from kvmbox.run.machine.one_boot import Boot
    from kvmbox.run.vcpu.handle import VcpuThread
    from kvmbox.run.vcpu.idle_slices import IdleSlices

CONGESTED_WAIT: Final = WAIT_SLICE_MS * 1_000_000
"""How much later, in ns, a UART whose output has no room is told the time."""


class Watch:
    """The checks of one run. Belongs to the main thread."""

    def __init__(
        self, devices: Devices, console: Console, timers: DeadlineTimer, judge: Judge, standstill: VcpuPause
    ) -> None:
        self._devices = devices
        self._console = console
        self._timers = timers
        self._judge = judge
        self._standstill = standstill
        self._watchdog = Watchdog(devices.pool.channels)
        self._pace = CheckInterval()
        self._began = 0.0  # when the present slice did, in s of the monotonic clock
        self.boot: Boot | None = None
        """The present boot, while its vCPUs run."""
        self._looking = False  # whether the vCPUs have been asked to pause for a look
        self._halted = False  # whether all of them were, at the last look
        self._sleep: IdleSlices | None = None  # then
        self._put_off: set[str] = set()
        """The processes whose deadline has come, and that nobody would hear if they were told."""
        self.talkers: Final = frozenset(
            name
            for name, member in devices.pool.members.items()
            if any(device.granted(Input) and device.granted(Output) for device in member.devices)
        )
        """The processes whose devices print as time passes: those with UARTs."""

    def begin(self, boot: Boot | None) -> None:
        """A boot begins; None: guest time is to pass without one."""
        self._pace, self.boot = CheckInterval(), boot
        self._put_off.clear()
        self._looking, self._halted, self._sleep = False, False, None

    @property
    def _vcpus(self) -> Sequence[VcpuThread]:
        return () if self.boot is None else self.boot.vcpus

    # --- Slices -------------------------------------------------------------------------------------------

    def slice_ends_at(self) -> float:
        """When the present slice ends, in s of the monotonic clock."""
        return self._began + self._slice_ms() / 1000

    def _slice_ms(self) -> int:
        """How long the present slice is. If the guest slept soundly and may have been woken, it is noted."""
        visited = self._standstill.is_visited
        sound = not visited and self._sleep is not None and self._sleep.lasts()
        owes = bool(self._put_off) or visited
        return self._pace.slice_ms(announced=self._announces_exits, owes=owes, sound=sound)

    @property
    def _announces_exits(self) -> bool:
        """Whether the first exit of any vCPU will wake the main thread."""
        return all(thread.announces_exit for thread in self._vcpus)

    def slice_over(self) -> int | None:
        """The length of the slice in ms, if it is over: then the next one begins."""
        length = self._slice_ms()
        if time.monotonic() < self._began + length / 1000:
            return None
        # Counted, not caught up: a VMM that was suspended has missed slices, nobody else has.
        self._began = time.monotonic()
        return length

    def check(self, milliseconds: int) -> DeviceProcessError | None:
        """Make the checks of a slice of this length. Returns the error of a process that is hung, and that
        nothing replaces. Raises DeviceProcessError.
        """
        if self._looking:
            # One of them waits, for a device process or for room in an output stream: the guest is awake.
            self._resume_all()
        withheld = self._console.tick()
        hung = self._hung()
        if hung is not None:
            return hung
        flushed = self.flush_writes()
        self._standstill.slice()
        self._make_chores(milliseconds, busy=flushed or withheld)
        return None

    def _hung(self) -> DeviceProcessError | None:
        hung = self._watchdog.tick()
        if hung is None:
            return None
        if hung.survival.rescues:
            self._watchdog.kill(hung)
            return None
        return hung.fail(hung_error(hung.device_type))

    def _make_chores(self, milliseconds: int, *, busy: bool) -> None:
        channels = self._devices.pool.channels
        self._devices.late.slice_over(lambda: port_exits(thread.loop.routes for thread in self._vcpus))
        waiting = any(channel.waiting for channel in channels)
        chores = self._pace.passed(
            milliseconds,
            exits=sum(thread.loop.routes.guest_exits for thread in self._vcpus),
            busy=self._console.congested or waiting or busy,
            halted=self._halted,
        )
        if chores.examine and not self._standstill.is_held:
            self._looking = True
            for thread in self._vcpus:
                thread.pause()
        for device_type in sorted(self._put_off):
            if chores.probe or not self._may_put_off(device_type):
                self._put_off.discard(device_type)
                self._advance(device_type)
        if chores.probe:
            for channel in channels:
                if not channel.waiting and channel.is_started:
                    self._advance(channel.device_type)

    def flush_writes(self) -> bool:
        """Deliver the coalesced writes, unless their output has no room; returns whether there were any.

        Where a process has to start for them, a vCPU that runs is kicked, and its thread does so.
        """
        ring = None if self.boot is None else self.boot.ring
        if ring is None or self._console.congested:
            return False
        running = [thread for thread in self._vcpus if not thread.is_paused]
        if running and ring.waits_for_start:
            running[0].vcpu.kick()
            return True
        return ring.flush()

    # --- Deadlines ----------------------------------------------------------------------------------------

    def deadlines_expired(self) -> None:
        """Tell the processes whose deadline has come. Raises DeviceProcessError."""
        for device_type in self._timers.due():
            if self._may_put_off(device_type):
                self._put_off.add(device_type)
            else:
                self._advance(device_type)

    def _advance(self, device_type: str) -> None:
        channel = self._devices.pool.channel(device_type)
        if device_type in self.talkers and self._console.congested:
            # More time is more output of paced UARTs, and there is no room for it.
            self._timers.set(device_type, self._devices.clock.now() + CONGESTED_WAIT)
            return
        channel.request(protocol.ADVANCE)

    def _may_put_off(self, device_type: str) -> bool:
        """Whether the guest cannot notice that a deadline is handled only at the end of a quiet slice."""
        if self.boot is None or device_type in self.talkers:
            return False
        if not self._pace.may_put_off(announced=self._announces_exits, halted=self._halted):
            return False
        devices = self._devices.pool.members[device_type].devices
        return self.boot.guest.vm.are_masked([gsi for device in devices for gsi in device.irqs])

    # --- Looks --------------------------------------------------------------------------------------------

    def finish_examination(self, *, too_late: bool) -> None:
        """If all vCPUs have paused for a look: look, and end the guest if nothing can wake it. It is
        `too_late` if a vCPU has ended.
        """
        boot = self.boot
        if not self._looking or boot is None or not all(thread.is_paused for thread in boot.vcpus):
            return
        try:
            if not too_late and not self._standstill.is_held:
                guest = boot.guest
                from kvmbox.run.vcpu.halt import examine_all
                from kvmbox.run.vcpu.idle_slices import IdleSlices

                found = examine_all(boot.vcpus, guest.vm.get_ioapic(), guest.memory.byte_at)
                self._halted = found.halted
                self._sleep = IdleSlices(self._devices, boot) if found.halted else None
                if found.outcome is not None and not self._standstill.stops(found.outcome):
                    self._judge.ends(found.outcome)
        finally:
            self._resume_all()

    def _resume_all(self) -> None:
        self._looking = False
        self._standstill.let_go()
