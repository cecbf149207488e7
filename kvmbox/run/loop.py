"""The main thread of a run: signals, timers, input and watchdog. It starts the vCPUs and waits for their end.

In `kvmbox run` this is the main thread of the process. In a program, each machine has a main loop in a
thread of its own (`machine`).

The loop polls descriptors in slices, and `pace` decides the length of a slice. Once per slice the loop checks
- whether a device process has left a request of a vCPU thread unanswered for too long (`remote.watchdog`);
- whether no vCPU has exited for a while, so that all vCPUs may be halted for ever;
- whether idle device processes still answer.

Events between two slices wake the loop through a descriptor: a deadline of a device, a key, a death, a
forbidden call, the first exit after a quiet time. If a vCPU thread holds a channel, the loop waits for the
channel only for a limited number of slices.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeAlias

from kvmbox.board import Input, Output
from kvmbox.errors import DeviceProcessError, KvmboxError, UnknownExitError
from kvmbox.host.clock import GuestClock
from kvmbox.host.console import Console
from kvmbox.host.signals import Wakeup
from kvmbox.host.timers import DeadlineTimer, Timerfd
from kvmbox.judge import Judge
from kvmbox.kvm.exits import Exit
from kvmbox.outcome import (
    CLEAN,
    DEVICE_FAILED,
    INTERRUPTED,
    TIMED_OUT,
    UNKNOWN_EXIT,
    Outcome,
)
from kvmbox.remote.patience import WAIT_SLICE_MS, hung_error
from kvmbox.remote.pool import DevicePool
from kvmbox.remote.survival import LossPolicy
from kvmbox.remote.watchdog import Watchdog
from kvmbox.run.boot import Boot
from kvmbox.run.builder import Devices, GuestVm, tell_transfers
from kvmbox.run.caller import Caller
from kvmbox.run.coalescing import CoalescedRing
from kvmbox.run.config import RunConfig
from kvmbox.run.feeding import Feeding
from kvmbox.run.kinds import loop_kind
from kvmbox.run.pace import Pace
from kvmbox.run.settling import Settling
from kvmbox.run.standstill import Standstill
from kvmbox.run.suspend import Suspension
from kvmbox.run.timeless import timeless
from kvmbox.run.vcpu import VcpuThread, join_all, look_at_all
from kvmbox.run.vcpu_loop import LoopTotals, port_exits
from kvmbox.sandbox.vmm import Confinement, confine_vcpu
from kvmbox.wire import protocol

CONGESTED_WAIT: Final = WAIT_SLICE_MS * 1_000_000
"""How much later, in ns, a UART whose output has no room is told the time."""

JOIN_SECONDS: Final = 2.0
"""How long the vCPU threads may take to leave once they were kicked and nothing can block them any more."""

JOIN_TRIES: Final = 4
"""How often within that time device processes are killed for which it waits."""

ExitFilter: TypeAlias = Callable[[int, Exit], int]
"""Is asked, on the thread of a vCPU, about a rare exit of the CPU of a number: see `vcpu_loop`."""


LossPolicyOf: TypeAlias = Callable[
    [DevicePool, Callable[[], None], Callable[[], None], Callable[[], None]], LossPolicy
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
        loss_policy: LossPolicyOf | None = None,
        summon: Callable[[Outcome], None] = lambda _outcome: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`cpu` is the host CPU of the first vCPU. `started` is when the command began, in ns of the host's
        monotonic clock: --timeout counts from there. `loss_policy` makes the policy for lost device
        processes, if it is another one than the pool's own. `summon` hears of the end before visitors do: it
        may admit one that is wanted for such ends only.
        """
        self.standstill = Standstill(wakeup.wake)
        """The moments at which the machine stands still."""
        self.exit_filter: ExitFilter | None = None
        """What is asked about each rare exit of a vCPU, if anything is."""
        self.settling: Settling | None = None
        """What settles an event that the judge holds."""
        self._config = config
        self._judge = judge
        self._console = console
        self.wakeup = wakeup
        self._caller = caller
        self._cpu = cpu
        self._loss_policy = loss_policy
        self._summon = summon
        self._say = say
        self._overtime = False  # whether visitors look at a guest whose time is over, and that still runs
        self._timerfd = Timerfd()
        self._timers: DeadlineTimer | None = None
        self._pool: DevicePool | None = None
        self._devices: Devices | None = None
        self._vcpus: list[VcpuThread] = []
        """Those of the present boot."""
        self._ended: list[VcpuThread] = []
        """Those whose loop has ended, in that order, and whose end has not decided the outcome yet."""
        self._failure: BaseException | None = None
        """The first decisive event of the boot, if that is a failure that no outcome describes."""
        self._looking = False  # whether the vCPUs have been asked to pause for a look
        self._halted = False  # whether all of them were, at the last look
        self._boot: Boot | None = None
        self._reset_wanted = threading.Event()
        self.suspension: Suspension | None = None
        """What the guest asked for, if the boot has ended because it asked to be suspended."""
        self._pace = Pace()
        self._put_off: set[str] = set()
        """The processes whose deadline has come, and that nobody would hear if they were told."""
        self._watchdog: Watchdog | None = None
        self._slice_began = 0.0
        self._feeding: Feeding | None = None
        self.talkers: set[str] = set()
        """The processes whose devices print as time passes: those with UARTs."""
        self._started = started
        self.confinement: Confinement | None = None
        """What the VMM has confined itself with, if it has."""
        self.totals = LoopTotals()
        """What the run loops of all boots have counted."""
        self.boot_format = ""
        """How the image was booted: "multiboot", "elf32", "elf64" or "real"."""
        judge.on_decided(self._decided)

    # --- Wiring -------------------------------------------------------------------------------------------

    def deadline_changed(self, device_type: str, deadline: int, _now: int) -> None:
        """A reply has a new deadline. Called by the thread that received the reply."""
        if self._timers is not None:
            self._timers.set(device_type, None if deadline == protocol.NO_DEADLINE else deadline)

    def reset_requested(self) -> None:
        """A device asked for a reset. Called by the thread that received the reply."""
        if self._config.no_reboot:
            self._judge.ends(Outcome(CLEAN, "the guest asked for a reset (--no-reboot)"))
        else:
            self._judge.leaves(self.reset)

    def reset(self) -> None:
        """Not the guest asks for a reset, but a person: that is none of --no-reboot. Thread-safe."""
        self._reset_wanted.set()
        self._leave_all()

    def suspend_requested(self, device: str, wakes: int) -> None:
        """A device asked for the sleep of which it is told the end. By the thread that received the reply."""
        self.suspension = Suspension(device, wakes)
        self._leave_all()

    def _decided(self) -> None:
        if self._overtime:
            return
        self._leave_all()
        self.wakeup.wake()

    def _leave_all(self) -> None:
        self._console.wake_waiters()
        for thread in self._vcpus:
            thread.leave()

    def prepare(self, pool: DevicePool, clock: GuestClock) -> None:
        """Prepare for the channels of `pool`, whose processes have been launched. Keep deadlines from now on.

        Guest time stands still while a process starts, or is replaced.
        """

        def resume() -> None:
            clock.resume()
            self.rearm()

        self._pool = pool
        self._timers = DeadlineTimer(clock, self._timerfd)
        wake = self.wakeup.wake
        pool.starts.attend(pause_time=clock.pause, resume_time=resume, wake=wake)
        if self._loss_policy is not None:
            pool.loss_policy = self._loss_policy(pool, clock.pause, resume, wake)

    def take_devices(self, devices: Devices) -> None:
        """Take over the devices, whose channels are connected now."""
        self._devices = devices
        self._watchdog = Watchdog(devices.pool.channels)
        self.talkers = {
            name
            for name, member in devices.pool.members.items()
            if any(device.granted(Input) and device.granted(Output) for device in member.devices)
        }

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
        with timeless(self._devices, self.rearm), self.standstill.hidden():
            yield self._boot

    def _stand_still(self, devices: Devices) -> None:
        if self._boot is None and self.settling is not None:
            self.settling.end()  # it sleeps, and no vCPU is there to stand still
        elif self._boot is not None and not self._ended and self._judge.outcome is None:
            self.standstill.turn(devices.clock)

    # --- The end ------------------------------------------------------------------------------------------

    @property
    def ended_by_signal(self) -> Outcome:
        """The outcome that a signal gives, if it is the first decisive event."""
        return Outcome(INTERRUPTED, self._caller.ended_by or "interrupted")

    def _must_end(self) -> bool:
        """Whether the run has to end; decides it if a signal or the time-out says so."""
        timeout = self._config.timeout
        if self._caller.ended_by is not None:
            self._judge.decide(self.ended_by_signal)
        elif timeout is not None and time.monotonic_ns() >= self._times_out_at(timeout):
            outcome = Outcome(TIMED_OUT, f"--timeout {timeout:g} s ran out", error=True)
            self._time_out(outcome)
        return self._judge.outcome is not None

    def _times_out_at(self, timeout: float) -> float:
        """When --timeout is over, in ns. It does not count while a visitor keeps the guest from going on."""
        return self._started + timeout * 1e9 + self.standstill.stood_ns

    def _time_out(self, outcome: Outcome) -> None:
        """Decide the outcome, and let visitors look where the guest is, which goes on meanwhile."""
        self._overtime = True
        try:
            if self._judge.decide(outcome) and self._boot is not None:
                self._summon(outcome)
                self.standstill.timed_out(self._boot)
        finally:
            self._overtime = False
        self._decided()

    # --- One boot -----------------------------------------------------------------------------------------

    def run_until_reset(self, guest: GuestVm) -> bool:
        """Run the guest until it wants a reset or a suspension (True) or the outcome is decided (False)."""
        assert self._devices is not None
        self._reset_wanted.clear()
        self.suspension = None
        self._console.may_wait()
        self.boot_format = guest.boot.format
        ring = guest.coalesce(self._devices, self._console)
        self._pace = Pace()
        self._put_off.clear()
        self._ended, self._failure, self._looking, self._halted = [], None, False, False
        self._vcpus = self._threads_of(guest, ring, self._devices)
        boot = Boot(guest, self._vcpus, ring)
        if self._must_end():
            return False
        try:
            self._run_vcpus(boot)
            if not self._has_failed and self.settling is not None:
                self.settling.end()
        finally:
            self._end_boot(boot)
        if self._failure is not None:
            raise self._failure
        if self._reset_wanted.is_set():
            self.suspension = None  # two vCPUs asked at a time
        # A guest that resets all the time must not outlive a signal or the time-out by that.
        return (self._reset_wanted.is_set() or self.suspension is not None) and not self._must_end()

    def _run_vcpus(self, boot: Boot) -> None:
        """Run the vCPUs, and end them when the boot is to end."""
        devices = self._devices
        assert devices is not None
        self._boot = boot
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
            self._take_ends()
            self._join()
            devices.clock.hold()
            self.rearm()
            self.totals.add([thread.loop for thread in boot.vcpus])
            devices.late.detach()
            self._boot = None
            self._take_ends()

    def _end_boot(self, boot: Boot) -> None:
        """Tell visitors, with the outcome if there is one and its vCPUs can be looked at."""
        end = None if self._has_failed or self.has_live_vcpu else self._judge.outcome
        if end is not None:
            self._summon(end)
        self.standstill.end(boot, end)

    def sleep(self, woken: Callable[[], bool]) -> bool:
        """Let guest time pass with no vCPU until `woken` (True), or until the outcome is decided (False)."""
        assert self._devices is not None
        self._vcpus, self._pace = [], Pace()
        self._lend(0.0)
        self._devices.clock.release()
        self.rearm()
        try:
            self._poll_until_end(woken)
        finally:
            self._devices.clock.hold()
            self.rearm()
        return not self._must_end()

    def _threads_of(self, guest: GuestVm, ring: CoalescedRing | None, devices: Devices) -> list[VcpuThread]:
        make = loop_kind()
        return [
            VcpuThread(
                vcpu,
                make(
                    vcpu,
                    devices.ports,
                    devices.mmio,
                    read_memory=guest.memory.byte_at,
                    ring=ring,
                    told=self.wakeup.wake,
                    decide=partial(self._judge.ends, gone=True),
                    is_pvm=guest.is_pvm,
                    name=f"CPU {vcpu.index}" if len(guest.vcpus) > 1 else None,
                    met=None if self.exit_filter is None else partial(self.exit_filter, vcpu.index),
                ),
                # The device processes share the CPU of the first one (host.placement).
                cpu=self._cpu if vcpu.index == 0 else None,
                confine=self._confine_vcpu,
                ended=self._vcpu_ended,
            )
            for vcpu in guest.vcpus
        ]

    def _confine_vcpu(self) -> None:
        if self.confinement is not None:
            confine_vcpu(self.confinement)

    def _vcpu_ended(self, thread: VcpuThread) -> None:
        self._ended.append(thread)
        self.wakeup.wake()

    @property
    def has_live_vcpu(self) -> bool:
        """Whether a vCPU thread of the last boot runs: its virtual machine and the memory are in use."""
        return any(thread.is_alive for thread in self._vcpus)

    def _take_ends(self) -> None:
        """Let the vCPU threads that have failed decide the outcome, in their order, unless it is decided.

        An error that has no outcome is kept for `run_until_reset` to raise. If it comes too late to be the
        first decisive event, it is told.
        """
        while self._ended:
            thread = self._ended.pop(0)
            error = thread.error
            if error is None:
                continue  # it has decided the outcome itself, or was asked to leave
            if isinstance(error, DeviceProcessError):
                self.device_failed(error)
            elif isinstance(error, UnknownExitError):
                first, _, report = str(error).partition("\n")
                self._judge.ends(
                    Outcome(UNKNOWN_EXIT, first, error=True, hint=error.hint, report=report), gone=True
                )
            else:
                self._fail(error)

    @property
    def _has_failed(self) -> bool:
        """Whether the boot has ended by a failure."""
        return self._failure is not None

    def _fail(self, error: BaseException) -> None:
        """Keep an error that ends the run, unless something else has ended the run first."""
        if self._failure is None and self._judge.outcome is None:
            self._failure = error
        else:
            self._say(f"after the end of the run: {error}")

    def device_failed(self, error: DeviceProcessError) -> None:
        """A device process has failed: find the cause, and end the run."""
        if self._judge.outcome is not None:
            return
        assert self._devices is not None
        found = self._devices.pool.explain(error)
        self._judge.decide(Outcome(DEVICE_FAILED, str(found), error=True, hint=found.hint))

    def _join(self) -> None:
        """End the vCPU threads. Kick them out of KVM_RUN, and kill a device process that does not answer."""
        assert self._devices is not None
        self._leave_all()
        ended = join_all(self._vcpus, JOIN_SECONDS / JOIN_TRIES)
        for attempt in range(JOIN_TRIES):
            if ended:
                return
            # Told again, a spawner that hangs is killed: its processes die with it.
            for channel in self._devices.pool.channels:
                # A process that is about to start, or to replace another one, has more time for that.
                if channel.waiting or (attempt >= JOIN_TRIES // 2 and channel.survival.being_connected):
                    self._devices.pool.kill(channel.device_type)
            ended = join_all(self._vcpus, JOIN_SECONDS / JOIN_TRIES)
        if not ended:
            self._fail(KvmboxError("a vCPU thread does not end: KVM_RUN ignores the kick"))

    # --- The loop -----------------------------------------------------------------------------------------

    def _poll_until_end(self, until: Callable[[], bool] = lambda: False) -> None:
        devices = self._devices
        assert devices is not None
        pool = devices.pool
        poll = select.poll()
        poll.register(self.wakeup.read_end, select.POLLIN)
        poll.register(self._timerfd.descriptor, select.POLLIN)
        pool.watch(poll)
        self.standstill.watch(poll)
        feeding = self._feeding = Feeding(self._console, pool, poll, devices.router.assert_again)
        while not self._must_end() and not self._ended and not until():
            feeding.watch()
            # Input that the UART takes goes on at once, but one offer a turn: everything else gets its turn.
            sleep = 0.0 if any(port.can_send for port in self._console.inputs) else self._sleep_ms()
            self._lend(sleep)
            events = poll.poll(sleep)
            self._lend(0.0)
            try:
                length = self._pace.slice_ms(told=self._tells_next_exit)
                if time.monotonic() >= self._slice_began + length / 1000:
                    # Counted, not caught up: a VMM that was suspended has missed slices, nobody else has.
                    self._slice_began = time.monotonic()
                    self._slice(length)
                self._handle(poll, events, feeding)
                self._finish_look()
                feeding.feed()
                tell_transfers(devices)
                self._stand_still(devices)
                pool.tend(poll, self._say)
            except DeviceProcessError as error:
                self.device_failed(error)

    def _lend(self, milliseconds: float) -> None:
        """Let guest time run while the main thread sleeps for so long, or until the first deadline."""
        assert self._timers is not None
        if self._timers.lend(int(milliseconds * 1e6)):
            self.rearm()

    def _sleep_ms(self) -> float:
        """How long the main thread may sleep: until the end of the slice, or until the time-out."""
        wake = self._slice_began + self._pace.slice_ms(told=self._tells_next_exit) / 1000
        if self._config.timeout is not None:
            wake = min(wake, self._times_out_at(self._config.timeout) / 1e9)
        now = time.monotonic()
        assert self._devices is not None
        visit = self.standstill.wake_in(self._devices.clock)
        return max(0.0, (wake if visit is None else min(wake, now + visit)) - now) * 1000

    def _handle(self, poll: select.poll, events: list[tuple[int, int]], feeding: Feeding) -> None:
        assert self._devices is not None
        assert self._timers is not None
        for descriptor, mask in events:
            if descriptor == self.wakeup.read_end:
                self.wakeup.clear()
            elif descriptor == self._timerfd.descriptor:
                self._timerfd.clear()
                for device_type in self._timers.due():
                    if self._may_put_off(device_type):
                        self._put_off.add(device_type)
                    else:
                        self._advance(device_type)
            elif self.standstill.handle(descriptor):
                pass
            elif not feeding.handle(descriptor, mask):
                if not mask & select.POLLIN:
                    # The listener of a dead process hangs up for ever; how it died comes from the spawner.
                    poll.unregister(descriptor)
                error = self._devices.pool.check()
                if error is not None:
                    self._lost(error)

    def _lost(self, error: DeviceProcessError) -> None:
        """A device process was found dead, or about to be. Raises the error where that ends the run."""
        assert self._devices is not None
        member = self._devices.pool.members.get(error.device_type)
        if member is None or member.channel is None or not member.channel.survival.rescues:
            raise error
        # Whatever is asked next finds it gone, and finds a replacement: this is as good as any. If the vCPU
        # thread was first, it asks the replacement, which must not be killed for the other one's fault.
        member.channel.request(protocol.ADVANCE)

    def _advance(self, device_type: str) -> None:
        devices = self._devices
        assert devices is not None
        assert self._timers is not None
        channel = devices.pool.channel(device_type)
        if device_type in self.talkers and self._console.congested:
            # More time is more output of paced UARTs, and there is no room for it.
            self._timers.set(device_type, devices.clock.now() + CONGESTED_WAIT)
            return
        channel.request(protocol.ADVANCE)

    def _may_put_off(self, device_type: str) -> bool:
        """Whether the guest cannot notice that a deadline is handled only at the end of a quiet slice."""
        devices, boot = self._devices, self._boot
        assert devices is not None
        if boot is None or device_type in self.talkers:
            return False
        if not self._pace.may_put_off(told=self._tells_next_exit, halted=self._halted):
            return False
        lines = [gsi for device in devices.pool.members[device_type].devices for gsi in device.irqs]
        return boot.guest.vm.are_masked(lines)

    def _slice(self, milliseconds: int) -> None:
        """Make the checks of one slice, which was `milliseconds` long."""
        devices = self._devices
        assert devices is not None
        if self._feeding is not None:
            self._feeding.try_again()
        if self._looking:
            # One of them waits, for a device process or for room in an output stream: the guest is awake.
            self._resume_all()
        withheld = self._console.tick()
        assert self._watchdog is not None
        hung = self._watchdog.tick()
        if hung is not None and hung.survival.rescues:
            self._watchdog.kill(hung)
        elif hung is not None:
            hung.fail(hung_error(hung.device_type))
            self.device_failed(hung_error(hung.device_type))
            devices.pool.kill(hung.device_type)
            return
        flushed = self.flush_writes()
        self.standstill.slice()
        congested = self._console.congested
        devices.late.tend(lambda: port_exits([thread.loop for thread in self._vcpus]))
        waiting = any(channel.waiting for channel in devices.pool.channels)
        chores = self._pace.passed(
            milliseconds,
            exits=sum(thread.loop.guest_exits for thread in self._vcpus),
            busy=congested or flushed or waiting or withheld,
            halted=self._halted,
        )
        if chores.look and not self.standstill.is_held:
            self._looking = True
            for thread in self._vcpus:
                thread.pause()
        for device_type in sorted(self._put_off):
            if chores.probe or not self._may_put_off(device_type):
                self._put_off.discard(device_type)
                self._advance(device_type)
        if chores.probe:
            for channel in devices.pool.channels:
                if not channel.waiting and channel.is_started:
                    self._advance(channel.device_type)

    def flush_writes(self) -> bool:
        """Deliver the coalesced writes, unless their output has no room; returns whether there were any."""
        ring = None if self._boot is None else self._boot.ring
        return ring is not None and not self._console.congested and ring.flush()

    @property
    def _tells_next_exit(self) -> bool:
        """Whether the first exit of any vCPU will wake the main thread."""
        return all(thread.loop.tells_next_exit for thread in self._vcpus)

    def _finish_look(self) -> None:
        """If all vCPUs have paused for a look: look, and end the guest if nothing can wake it."""
        boot = self._boot
        if not self._looking or boot is None or not all(thread.is_paused for thread in self._vcpus):
            return
        try:
            if not self._ended and not self.standstill.is_held:
                guest = boot.guest
                look = look_at_all(self._vcpus, guest.vm.get_ioapic(), guest.memory.byte_at)
                self._halted = look.halted
                if look.outcome is not None and not self.standstill.stops(look.outcome):
                    self._judge.ends(look.outcome)
        finally:
            self._resume_all()

    def _resume_all(self) -> None:
        self._looking = False
        self.standstill.let_go()

    def close(self) -> None:
        """Close what belongs to the main loop."""
        if self._pool is not None:
            self._pool.loss_policy.tell(self._say, lambda _: None, waits=True)
        self._timerfd.close()
