"""The main thread of a run: signals, timers, input and deaths. It starts the vCPUs and waits for their end.

In `kvmbox run` this is the main thread of the process. In a program, each machine has a main loop in a
thread of its own (`run.api.machine`).

The loop polls descriptors in slices. `periodic_checks` has the checks that are made once per slice, and
`end_conditions` knows what ends a boot. Events between two slices wake the loop through a descriptor: a
deadline of a device, a key, a death, a forbidden call, the first exit after a quiet time. If a vCPU thread
holds a channel, the loop waits for the channel only for a limited number of slices.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from kvmbox.base.errors import DeviceProcessError, KvmboxError
from kvmbox.host.time.deadline_timer import DeadlineTimer, Timerfd
from kvmbox.remote.process.crash_policy import LossPolicy
from kvmbox.run.loop.console_inputs import Inputs
from kvmbox.run.loop.end_conditions import Ends
from kvmbox.run.loop.periodic_checks import Watch
from kvmbox.run.loop.vcpu_pause import VcpuPause
from kvmbox.run.machine.loop_implementations import loop_kind
from kvmbox.run.machine.one_boot import Boot
from kvmbox.run.vcpu.exit_routes import ExitTotals
from kvmbox.run.vcpu.handle import VcpuThread
from kvmbox.sandbox.vmm import Confinement, confine_vcpu
from kvmbox.wire import protocol

if TYPE_CHECKING:
    from kvmbox.base.judge import Judge
    from kvmbox.base.outcome import Outcome
    from kvmbox.host.console.serial_ports import Console
    from kvmbox.host.process.signals import Wakeup
    from kvmbox.host.time.guest_clock import GuestClock
    from kvmbox.host.time.starvation import Starvation
    from kvmbox.kvm.vcpu import Vcpu
    from kvmbox.remote.process.device_pool import DevicePool
    from kvmbox.run.frontend import Caller
    from kvmbox.run.loop.output_drain import OutputDrain
    from kvmbox.run.machine.device_set import Devices
    from kvmbox.run.machine.guest_vm import GuestVm
    from kvmbox.run.options.config import RunConfig
    from kvmbox.run.vcpu.coalesced_ring import CoalescedRing
    from kvmbox.run.vcpu.run_loop import ExitFilter

JOIN_SECONDS: Final = 2.0
"""How long the vCPU threads may take to leave once they were kicked and nothing can block them any more."""

JOIN_TRIES: Final = 4
"""How often within that time device processes are killed for which it waits."""

STARVED_TRIES: Final = 60
"""How many times longer, each as long as one of these, they may take while the host gives them no CPU."""

LossPolicyOf: TypeAlias = Callable[
    ["DevicePool", Callable[[], None], Callable[[], None], Callable[[], None]], LossPolicy
]
"""Makes the policy of a pool, with what makes guest time stand still and go on, and what wakes the main
thread."""


class MainLoop:
    """Runs one guest to its end. Belongs to the main thread."""

    def __init__(
        self,
        config: RunConfig,
        judge: Judge,
        console: Console,
        wakeup: Wakeup,
        caller: Caller,
        *,
        cpu: int | None,
        started: int,
        summon: Callable[[Outcome], None] = lambda _outcome: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`cpu` is the host CPU of the first vCPU. `started` is when the command began, in ns of the host's
        monotonic clock: --timeout counts from there. `summon` hears of the end before visitors do: it may
        admit one that is wanted for such ends only.
        """
        self.standstill: Final = VcpuPause(wakeup.wake, summon)
        """The moments at which the machine stands still."""
        self.ends: Final = Ends(config, judge, caller, self._leave_all, started=started, say=say)
        """What ends a boot."""
        self.watch: Watch
        """The checks of each slice, once there are devices."""
        self.exit_filter: ExitFilter | None = None
        """What is asked about each rare exit of a vCPU, if anything is: also while the guest runs."""
        self.settling: OutputDrain | None = None
        """What settles an event that the judge holds."""
        self.confinement: Confinement | None = None
        """What the VMM has confined itself with, if it has."""
        self.totals: Final = ExitTotals()
        """The exits of all boots."""
        self.wakeup: Final = wakeup
        self._console = console
        self._judge = judge
        self._cpu = cpu
        self._say = say
        self._timers: DeadlineTimer | None = None
        self._devices: Devices | None = None
        self._boot: Boot | None = None  # the last one, also when it has ended
        judge.on_decided(self._decided)

    # --- Wiring -------------------------------------------------------------------------------------------

    def deadline_changed(self, device_type: str, deadline: int, _now: int) -> None:
        """A reply has a new deadline. Called by the thread that received the reply."""
        if self._timers is not None:
            self._timers.set(device_type, None if deadline == protocol.NO_DEADLINE else deadline)

    def _decided(self) -> None:
        if not self.standstill.is_overtime:
            self._leave_all()
            self.wakeup.wake()

    def _leave_all(self) -> None:
        self._console.wake_waiters()
        boot = self._boot  # read once: the main thread may replace it meanwhile
        for thread in () if boot is None else boot.vcpus:
            thread.leave()

    def prepare(self, loss_policy: LossPolicyOf | None, pool: DevicePool, clock: GuestClock) -> None:
        """Prepare for the channels of `pool`, whose processes have been launched. Keep deadlines from now on.

        Guest time stands still while a process starts, or is replaced. `loss_policy` makes the policy for
        lost device processes, if it is another one than the pool's own.
        """

        def resume() -> None:
            clock.resume()
            self.rearm()

        self.ends.pool = pool
        self._timers = DeadlineTimer(clock, Timerfd())
        wake = self.wakeup.wake
        pool.starts.attend(pause_time=clock.pause, resume_time=resume, wake=wake)
        if loss_policy is not None:
            pool.loss_policy = loss_policy(pool, clock.pause, resume, wake)

    def take_devices(self, devices: Devices) -> None:
        """Take over the devices, whose channels are connected now."""
        assert self._timers is not None
        self._devices = devices
        self.watch = Watch(devices, self._console, self._timers, self._judge, self.standstill)

    def start_router(self) -> None:
        """Start what raises announced interrupt lines: beside the first vCPU, which most of them wake."""
        assert self._devices is not None
        self._devices.router.start(cpu=self._cpu, confine=self._confine_vcpu)

    def rearm(self) -> None:
        """The clock was released or held."""
        if self._timers is not None:
            self._timers.rearm()
        if self._devices is not None:
            self._devices.router.rearm()

    # --- Moments at which the machine stands still ----------------------------------------------------------

    @contextmanager
    def timeless(self) -> Iterator[Boot]:
        """Guest time stands still, as the guest does: see `timeless`. Raises DeviceProcessError."""
        assert self._boot is not None
        assert self._devices is not None
        from kvmbox.run.loop.paused_time import timeless

        with timeless(self._devices, self.rearm), self.standstill.hidden():
            yield self._boot

    def _stand_still(self, devices: Devices) -> None:
        if self._boot is None:
            if self.settling is not None:
                self.settling.end()  # the guest sleeps, and no vCPU is there to stand still
        elif not self.ends.are_near and self._judge.outcome is None:
            self.standstill.turn(devices.clock)

    def _must_end(self) -> bool:
        """Whether the run has to end; decides it if a signal or the time-out says so."""
        if self.ends.has_signal:
            self._judge.decide(self.ends.by_signal)
        elif (outcome := self.ends.overdue(self.standstill.stood_ns)) is not None:
            self.standstill.time_out(self.watch.boot, outcome, partial(self._judge.decide, outcome))
            self._decided()
        return self._judge.outcome is not None

    # --- One boot -----------------------------------------------------------------------------------------

    def run_until_reset(self, guest: GuestVm) -> bool:
        """Run the guest until it wants a reset or a suspension (True) or the outcome is decided (False)."""
        assert self._devices is not None
        self.ends.begin()
        self._console.may_wait()
        self.totals.format = guest.boot.format
        ring = guest.coalesce(self._devices, self._console)
        vcpus = [self._new_thread(vcpu, guest, ring, self._devices) for vcpu in guest.vcpus]
        boot = self._boot = Boot(guest, vcpus, ring)
        if self._must_end():
            return False
        try:
            self._run_vcpus(boot)
            if not self.ends.failed and self.settling is not None:
                self.settling.end()
        finally:
            live = self.has_live_vcpu
            self.standstill.end(boot, None if self.ends.failed or live else self._judge.outcome)
        if self.ends.failure is not None:
            raise self.ends.failure
        # A guest that resets all the time must not outlive a signal or the time-out by that.
        return self.ends.takes_reboot() and not self._must_end()

    def _run_vcpus(self, boot: Boot) -> None:
        """Run the vCPUs, and end them when the boot is to end."""
        devices = self._devices
        assert devices is not None
        self.watch.begin(boot)
        try:
            self._lend(0.0)
            self.standstill.begin(boot)
            devices.clock.release()
            self.rearm()
            for thread in boot.vcpus:
                thread.start()
            self._poll_until_end()
        finally:
            # Before the other threads leave: what makes them leave must not look like the first event.
            self.ends.take()
            self._join(boot)
            devices.clock.hold()
            self.rearm()
            self.totals.add([thread.loop.routes for thread in boot.vcpus])
            devices.late.detach()
            self.watch.begin(None)
            self.ends.take()

    def sleep(self, woken: Callable[[], bool]) -> bool:
        """Let guest time pass with no vCPU until `woken` (True), or until the outcome is decided (False)."""
        assert self._devices is not None
        self._boot = None
        self.watch.begin(None)
        self._lend(0.0)
        self._devices.clock.release()
        self.rearm()
        try:
            self._poll_until_end(woken)
        finally:
            self._devices.clock.hold()
            self.rearm()
        return not self._must_end()

    def _new_thread(
        self, vcpu: Vcpu, guest: GuestVm, ring: CoalescedRing | None, devices: Devices
    ) -> VcpuThread:
        make = loop_kind()
        thread = VcpuThread(
            vcpu,
            make.attention_kind(),
            notify=self.wakeup.wake,
            # The device processes share the CPU of the first one (host.process.cpu_placement).
            cpu=self._cpu if vcpu.index == 0 else None,
            confine=self._confine_vcpu,
            ended=self._vcpu_ended,
        )
        thread.loop = make(
            thread,
            vcpu,
            devices.ports,
            devices.mmio,
            read_memory=guest.memory.byte_at,
            ring=ring,
            decide=partial(self._judge.ends, gone=True),
            is_pvm=guest.is_pvm,
            name=f"CPU {vcpu.index}" if len(guest.vcpus) > 1 else None,
            exit_filter=lambda found: self.exit_filter and self.exit_filter(vcpu.index, found),
        )
        return thread

    def _confine_vcpu(self) -> None:
        if self.confinement is not None:
            confine_vcpu(self.confinement)

    def _vcpu_ended(self, thread: VcpuThread) -> None:
        self.ends.thread_ended(thread)
        self.wakeup.wake()

    @property
    def has_live_vcpu(self) -> bool:
        """Whether a vCPU thread of the last boot runs: its virtual machine and the memory are in use."""
        return self._boot is not None and any(thread.is_alive for thread in self._boot.vcpus)

    def _join(self, boot: Boot) -> None:
        """End the vCPU threads. Kick them out of KVM_RUN, and kill a device process that does not answer."""
        assert self._devices is not None
        self._leave_all()
        starvations: list[Starvation] = []
        for attempt in range(1 + JOIN_TRIES + STARVED_TRIES):
            end = time.monotonic() + JOIN_SECONDS / JOIN_TRIES
            ended = [thread.join(max(0.0, end - time.monotonic())) for thread in boot.vcpus]
            if all(ended):
                return
            starvations = starvations or [thread.starvation() for thread in boot.vcpus]
            if attempt < JOIN_TRIES:
                self._kill_unanswering(self._devices.pool, in_start=attempt >= JOIN_TRIES // 2)
            # A thread that has had no CPU has not ignored anything.
            elif not any(starvation.is_starved() for starvation in starvations):
                break
        self.ends.fail(KvmboxError("a vCPU thread does not end: KVM_RUN ignores the kick"))

    def _kill_unanswering(self, pool: DevicePool, *, in_start: bool) -> None:
        if pool.spawner is not None:
            pool.spawner.process.resume()  # one that somebody has stopped starts no process, and ends none
        # Told again, a spawner that hangs is killed: its processes die with it.
        for channel in pool.channels:
            # A process that is about to start, or to replace another one, has more time for that.
            if channel.waiting or (in_start and channel.survival.being_connected):
                pool.kill(channel.device_type)

    # --- The loop -----------------------------------------------------------------------------------------

    def _poll_until_end(self, until: Callable[[], bool] = lambda: False) -> None:
        devices, timers = self._devices, self._timers
        assert devices is not None
        assert timers is not None
        pool = devices.pool
        poll = select.poll()
        poll.register(self.wakeup.read_end, select.POLLIN)
        poll.register(timers.descriptor, select.POLLIN)
        pool.watch(poll)
        self.standstill.watch(poll)
        inputs = Inputs(self._console, pool, poll, devices.router.assert_again)
        while not self._must_end() and not self.ends.are_near and not until():
            inputs.watch()
            # Input that the UART takes goes on at once, but one offer a turn: everything else gets its turn.
            sleep = 0.0 if any(port.can_send for port in self._console.inputs) else self._sleep_ms(devices)
            self._lend(sleep)
            events = poll.poll(sleep)
            self._lend(0.0)
            try:
                if (length := self.watch.slice_over()) is not None:
                    self._slice(length, inputs, devices)
                self._handle(poll, events, inputs)
                self.watch.finish_examination(too_late=self.ends.are_near)
                inputs.feed()
                devices.complete_transfers()
                self._stand_still(devices)
                pool.tend(poll, self._say)
            except DeviceProcessError as error:
                self.ends.device_failed(error)

    def _slice(self, length: int, inputs: Inputs, devices: Devices) -> None:
        """A slice of this length, in ms, is over."""
        devices.router.step_aside()
        inputs.try_again()
        hung = self.watch.check(length)
        if hung is not None:
            self.ends.device_failed(hung)
            devices.pool.kill(hung.device_type)

    def _lend(self, milliseconds: float) -> None:
        """Let guest time run while the main thread sleeps for so long, or until the first deadline."""
        assert self._timers is not None
        if self._timers.lend(int(milliseconds * 1e6)):
            self.rearm()

    def _sleep_ms(self, devices: Devices) -> float:
        """How long the main thread may sleep: until the end of the slice, or until the time-out."""
        now = time.monotonic()
        wakes = [self.watch.slice_ends_at()]
        if (times_out_at := self.ends.times_out_at(self.standstill.stood_ns)) is not None:
            wakes.append(times_out_at / 1e9)
        if (visit := self.standstill.wake_in(devices.clock)) is not None:
            wakes.append(now + visit)
        return max(0.0, min(wakes) - now) * 1000

    def _handle(self, poll: select.poll, events: list[tuple[int, int]], inputs: Inputs) -> None:
        assert self._timers is not None
        for descriptor, mask in events:
            if descriptor == self.wakeup.read_end:
                self.wakeup.clear()
            elif descriptor == self._timers.descriptor:
                self._timers.clear()
                self.watch.deadlines_expired()
            elif not self.standstill.handle(descriptor) and not inputs.handle(descriptor, mask):
                if not mask & select.POLLIN:
                    # The listener of a dead process hangs up for ever; how it died comes from the spawner.
                    poll.unregister(descriptor)
                self._check_for_deaths()

    def _check_for_deaths(self) -> None:
        """Whether a device process is dead, or about to be. Raises its error, where that ends the run."""
        assert self._devices is not None
        error = self._devices.pool.check()
        if error is None:
            return
        member = self._devices.pool.members.get(error.device_type)
        if member is None or member.channel is None or not member.channel.survival.rescues:
            raise error
        # Whatever is asked next finds it gone, and finds a replacement: this is as good as any. If the vCPU
        # thread was first, it asks the replacement, which must not be killed for the other one's fault.
        member.channel.request(protocol.ADVANCE)

    def close(self) -> None:
        """Close what belongs to the main loop."""
        if self.ends.pool is not None:
            self.ends.pool.loss_policy.tell(self._say, lambda _: None, waits=True)
        if self._timers is not None:
            self._timers.close()
