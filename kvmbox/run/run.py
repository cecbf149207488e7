"""One run from start to end: the order in which its parts are started, and how they end in every case.

The order is part of the design. The spawner starts first, because it must not inherit anything. Device
processes start while the VMM reads the image and opens /dev/kvm. The vCPU starts when everything is ready. If
a step fails, everything that is open is closed in reverse order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from kvmbox.board import BOOT_DISK, DeviceSpec
from kvmbox.boot.files import HostFiles
from kvmbox.boot.plan import BootPlan
from kvmbox.errors import DeviceProcessError, KvmboxError, SandboxError
from kvmbox.firmware.fw_cfg import warning_about
from kvmbox.host.console import Console
from kvmbox.host.distinct import refuse_shared
from kvmbox.host.placement import Placement
from kvmbox.host.signals import Wakeup
from kvmbox.jail import layers, linux
from kvmbox.judge import Judge
from kvmbox.kvm.system import Kvm
from kvmbox.lean import Value
from kvmbox.memory import GuestMemory
from kvmbox.outcome import CLEAN, KVMBOX_FAILED, UNEXPECTED, Outcome
from kvmbox.parts.crash_report.aftermath import (
    EXPLAINED,
    Aftermath,
    SymbolFile,
    examine,
    last_lines_of,
    no_source,
    prepare,
)
from kvmbox.parts.screen.screen_view import ScreenView
from kvmbox.parts.screen.screens import Screens
from kvmbox.parts.snapshot.planned import PlannedSnapshots
from kvmbox.parts.snapshot.snapshots import Snapshots
from kvmbox.remote import prestart
from kvmbox.remote.pool import PER_DEVICE, THREAD, Design, DevicePool
from kvmbox.remote.transports import AUTO, TRANSPORTS, ipc_of
from kvmbox.run.boot_source import BootSource
from kvmbox.run.builder import Devices, GuestVm, board_of, fw_cfg_files, start_timer
from kvmbox.run.caller import Caller
from kvmbox.run.config import RunConfig
from kvmbox.run.drain import drain
from kvmbox.run.loop import Look, MainLoop
from kvmbox.run.settling import Settling
from kvmbox.run.statistics import RunStats, collect
from kvmbox.run.suspend import sleep_until_woken, tell_wake_up, waking_plan
from kvmbox.run.timeline import Timeline
from kvmbox.sandbox.seccomp import device_filter
from kvmbox.wire import protocol

if TYPE_CHECKING:
    from kvmbox.host.transfers import Store, TransferThread
    from kvmbox.parts.core_file.core_file import CoreFile
    from kvmbox.parts.crash_report.hang_profile import Profile
    from kvmbox.parts.crash_report.source_tree import SourceTree
    from kvmbox.parts.exit_samples.exit_sources import ExitSampler
    from kvmbox.parts.inject.injection import Injection
    from kvmbox.parts.profile.profiler import Profiling
    from kvmbox.parts.record.recorder import Recorder
    from kvmbox.parts.screen.live import LiveText
    from kvmbox.parts.snapshot.restore import Start
    from kvmbox.run.vcpu import VcpuThread


def run(
    config: RunConfig,
    caller: Caller,
    *,
    judge: Judge,
    say: Callable[[str], None],
    started: Callable[[], None] = lambda: None,
    settled: Callable[[Outcome, RunStats], None] = lambda _outcome, _statistics: None,
    timeline: Timeline | None = None,
    snapshots: Snapshots | None = None,
    screens: Screens | None = None,
) -> tuple[Outcome, RunStats]:
    """Boot `config.guest` and run it to its end, in this thread; returns how it ended, judged by what was
    expected of it, and what it did.

    `judge` ends the run. `say` tells the person a line, `started` hears that the guest is
    about to run, and `settled` hears what is returned before the processes and guest memory are closed.
    `snapshots` are those that a program may ask for, and `screens` its looks at the screen.
    Raises KvmboxError where the run could not start; a run that started has an outcome.
    """
    timeline = timeline or Timeline()
    live = _live(config)
    if live is not None:
        say = live.beside(say)
    refuse_shared(config.files_written, config.files_read)
    starting = caller.starting(config.timeout, timeline)
    # Signal handlers are put back last of all: until then a signal cannot change what was decided. The
    # start's time-out is left before the clean-up begins: no alarm interrupts that.
    with ExitStack() as last, ExitStack() as cleanup, starting:
        start = _start(config)
        files = HostFiles() if start is None else start.files()
        with _blaming(start):
            items = fw_cfg_files(config, files)
            board_of(config, fw_cfg=items)  # what contradicts itself is refused before anything starts
        for file in config.fw_cfg:
            if (warning := warning_about(file.name)) is not None:
                say(warning)
        placement = prestart.OWN.place(config.pin, config.cpus)
        cleanup.callback(placement.close)
        design = _checked(config.design, config.require, placement, say)
        pool = DevicePool(design)
        cleanup.callback(pool.close)
        pool.ready_by = starting.at
        with _blaming(start):
            source = BootSource.read(config, files)  # it tells which devices there are
            board = board_of(
                config, bios=source.has_bios, disk=source.disk_sectors, fw_cfg=(*source.fw_cfg, *items)
            )
        injection = _injection(config, board)
        if injection is not None:
            board = injection.board_of(board)
        if start is not None:
            start.check_board(board)
        gdb = None
        if config.gdb is not None:
            from kvmbox.parts.gdb.part import GdbStart

            gdb = GdbStart(config.gdb, caller)
            cleanup.callback(gdb.close)
        snapshots = snapshots or Snapshots()
        plans = PlannedSnapshots(config, board, snapshots, caller, judge)
        cleanup.callback(plans.close)
        core = _core_file(config, caller, say)
        if core is not None:
            cleanup.callback(core.close)
        tree = _source_tree(config)
        if tree is not None:
            cleanup.callback(tree.close)
        recorder = _recorder(config, board, say)
        if recorder is not None:
            cleanup.callback(recorder.finish)
            pool.recorder_of = recorder.of
        profiling = _profiling(config)
        if profiling is not None:
            cleanup.callback(profiling.close)
        timeline.mark("spawner started")
        transport = TRANSPORTS[design.ipc]
        pool.launch(
            board,
            device_filter(pipes=transport.uses_pipes) if design.filters else b"",
            cpu=placement.cpu,
            spare_cpus=placement.spares,
            may_spin=transport.spins and placement.has_room_to_spin,
            require=config.require,
            on_demand=True,
        )
        timeline.mark("device processes asked for")
        memory = GuestMemory(config.memory_size) if start is None else start.memory()
        if start is not None:
            timeline.mark("snapshot verified")
        users: list[Callable[[], bool]] = []  # what tells whether a thread still uses the guest's memory
        cleanup.callback(_close_unused, memory.close, users)
        kvm = cleanup.enter_context(Kvm.open(config.kvm_path))
        factory = GuestFactory(kvm, memory, source, config.cpus, config.cpu, caller.waits_for_kernel)
        guest = factory.build() if start is None else factory.continue_from(start)
        cleanup.callback(_close_unused, guest.close, users)
        if guest.not_hidden:
            say(f"--cpu {config.cpu}: this host's KVM shows all the same: {', '.join(guest.not_hidden)}")
        timeline.mark("virtual machine built")

        wakeup = Wakeup()
        cleanup.callback(wakeup.close)
        console = Console(
            config.serial,
            judge,
            debugcon=config.debugcon,
            keyboard=config.keyboard,
            overflow=config.serial_overflow,
            limit=config.serial_limit,
            bios=source.has_bios,
            keep_bios_text=config.screen in ("auto", "live"),
            draws=live is not None,
            say=say,
            wake=wakeup.wake,
            terminal=caller.terminal,
        )
        cleanup.callback(console.close)
        main_loop = MainLoop(
            config,
            judge,
            console,
            wakeup,
            caller,
            cpu=placement.cpu,
            started=timeline.started,
            look=_look(source.symbols, tree, core),
            say=say,
        )
        users.append(lambda: main_loop.has_live_vcpu)
        cleanup.callback(main_loop.close)
        last.callback(caller.release)
        try:
            devices = Devices(
                board,
                pool,
                console,
                judge,
                reset=main_loop.reset_requested,
                suspend=main_loop.suspend_requested,
                deadline_changed=main_loop.deadline_changed,
                prepare=main_loop.prepare,
                ram=memory,
                stores=_stores(config, source),
                wake=wakeup.wake,
                injection=injection,
                exact=any(condition.text is not None for condition in config.snapshot_when),
            )
            cleanup.callback(devices.router.close)
            if devices.transfers is not None:
                cleanup.callback(_end_transfers, devices.transfers, say)
            main_loop.take_devices(devices)
            view = ScreenView(
                *(config, memory, devices, console, judge),
                *(main_loop.flush_writes, say),
                has_bios=source.has_bios,
                live=live,
            )
            plans.attend(main_loop, kvm, files, devices, console, say)
            if judge.searches or live is not None:
                main_loop.each_slice = view.look
            if start is not None:
                timeline.mark("devices ready")
                start.resume(devices, console)
                timeline.mark("device states restored")
                view.begin()
            if screens is not None:
                screens.attend(main_loop.standstill, view.read)
            settling = _settling(config, judge, main_loop, devices, console)
            if profiling is not None:
                profiling.attend(main_loop, source.symbols)
            exit_sampler = _exit_sampler(config, main_loop)
            pool.ready_by = None
            starting.over()
            caller.ready(judge, wakeup)
            if start is None:
                timeline.mark("devices ready")
            if gdb is not None:
                gdb.attend(kvm, board, source.symbols, config.cpus, judge, main_loop, view.text, say)
            prepare(disassembles=bool(config.symbols) or os.isatty(2))
            main_loop.confinement = caller.confine(
                pool,
                without=config.design.without,
                require=config.require,
                readable=() if tree is None else tree.directories,
                accepts=gdb is not None and gdb.accepts,
            )
            if main_loop.confinement is not None:
                timeline.mark("confined")
            # Threads inherit what confines the one that starts them: those that write come now.
            if recorder is not None:
                recorder.start()
            console.start()
            if devices.transfers is not None:
                devices.transfers.start()
            main_loop.start_router()
            started()
            try:
                _boot_until_end(guest, factory, devices, main_loop, judge)
                settling.end()
                if config.uart_pace:
                    drain(devices, main_loop.talkers, main_loop.rearm)
            except DeviceProcessError as error:
                main_loop.device_failed(error)
            except KeyboardInterrupt:
                # The third signal that asks for the end, when two have not brought it.
                judge.decide(main_loop.ended_by_signal)
            view.end()
        finally:
            missing_snapshot = snapshots.end()
            untold = [console.finish()]  # snapshots and recordings tell what goes wrong when it does
            problem = untold[0] or plans.problem
            if recorder is not None:
                problem = recorder.finish() or problem
            if profiling is not None:
                untold.append(profiling.finish())
                problem = untold[-1] or problem
        timeline.mark("guest ended")
        outcome = judge.verdict
        no_core = None if core is None else core.missing(outcome)
        judged = _with_losses(outcome, problem or no_core, missing_snapshot)
        for lost in (*untold, no_core):
            if lost is not None and judged.reason != lost:
                say(lost)
        path = None if core is None else core.path
        judged = _with_details(judged, main_loop.aftermath, path, console, view, source.hint)
        sources = {} if exit_sampler is None else exit_sampler.report(source.symbols)
        stats = collect(devices, main_loop, console, timeline, pool, injection, exit_sources=sources)
        if injection is not None:
            _tell_faults(injection, say)
        if gdb is not None:
            gdb.finish(judged.status)
        settled(judged, stats)
    timeline.mark("closed")
    return judged, stats


def _settling(
    config: RunConfig,
    judge: Judge,
    main_loop: MainLoop,
    devices: Devices,
    console: Console,
) -> Settling:
    """What the guest has written before an event is judged before it. Behind all triggers of the judge."""
    steps = [console.show_withheld, main_loop.each_slice]
    if config.uart_pace:
        steps.insert(0, partial(drain, devices, main_loop.talkers, main_loop.rearm))

    def hold() -> None:
        console.wake_waiters()  # a vCPU thread that waits for room cannot stand still
        main_loop.standstill.call()

    settling = main_loop.settling = Settling(judge, steps)
    main_loop.standstill.admit(settling)
    judge.attend(hold, paced=tuple(config.serial) if config.uart_pace else ())
    return settling


def _live(config: RunConfig) -> LiveText | None:
    """What draws the screen on the terminal, if that is wanted."""
    if config.screen != "live":
        return None
    from kvmbox.parts.screen.live import LiveText

    return LiveText(os.get_terminal_size(1).lines)


def _stores(config: RunConfig, source: BootSource) -> Mapping[str, Store]:
    if not source.disk:
        return config.resources
    from kvmbox.host.transfers import ReadOnlyStore

    return {**config.resources, BOOT_DISK: ReadOnlyStore(source.disk)}


def _close_unused(close: Callable[[], None], users: Sequence[Callable[[], bool]]) -> None:
    """Close what is unmapped by that, unless a thread that does not end still uses it: then the end of the
    process unmaps it.
    """
    if not any(uses() for uses in users):
        close()


def _checked(design: Design, require: int, placement: Placement, say: Callable[[str], None]) -> Design:
    """The design as this host can have it; what it gives up is said aloud. Raises SandboxError."""
    if design.without:
        left_out = ", ".join(layers.names(design.without))
        say(f"--without {left_out}: this run is contained less than others")
    if not design.has_processes:
        if require & ~layers.VMM:
            raise SandboxError(
                f"--require: there is no sandbox layer at all with --sandbox {design.sandbox}",
                hint="leave --sandbox out, or --require",
            )
        say(f"--sandbox {design.sandbox}: device models run in kvmbox itself, nothing contains them")
    elif design.seccomp == "off":
        say("--seccomp off: device processes may make any system call")
    elif design.seccomp == "strict" and linux.seccomp_mode() != linux.SECCOMP_MODE_DISABLED:
        raise SandboxError(
            "--seccomp strict is refused by the kernel: kvmbox itself runs under a seccomp filter",
            hint="a container runtime installs one; use --seccomp filter, or run outside of it",
        )
    if design.ipc == AUTO:
        can_spin = design.has_processes and placement.has_room_to_spin
        ipc = ipc_of(AUTO, can_spin=can_spin)
        return Design(design.sandbox, design.seccomp, ipc, design.without)
    spins = TRANSPORTS[design.ipc].spins
    if spins and design.has_processes and not placement.has_room_to_spin:
        say(f"--ipc {design.ipc}: there is no further CPU to spin on, so each request rings a doorbell")
    elif spins and design.sandbox == THREAD:
        say(
            f"--ipc {design.ipc}: threads of one interpreter cannot spin for each other: "
            "each request rings a doorbell"
        )
    return design


def _start(config: RunConfig) -> Start | None:
    """What the run starts from instead of its image, if it does."""
    if config.start is None:
        return None
    from kvmbox.parts.snapshot.restore import Start

    return Start(config.start, catch_up=config.rtc == "catch-up")


def _injection(config: RunConfig, board: list[DeviceSpec]) -> Injection | None:
    """The faults of the devices, if they have any. Raises UsageError."""
    if not config.inject:
        return None
    from kvmbox.parts.inject.injection import Injection

    return Injection(config.inject, board)


def _tell_faults(injection: Injection, say: Callable[[str], None]) -> None:
    """Nobody is to take the end of such a run for that of another one."""
    from kvmbox.parts.inject.injection import report

    for line in report(injection.counts):
        say(f"--inject: {line}")


def _blaming(start: Start | None) -> AbstractContextManager[None]:
    """What is wrong with the configuration of a machine from a snapshot is the snapshot's fault."""
    return nullcontext() if start is None else start.blamed()


def _recorder(config: RunConfig, board: list[DeviceSpec], say: Callable[[str], None]) -> Recorder | None:
    if config.record is None:
        return None
    from kvmbox.parts.record.recorder import Recorder

    per_device = config.design.sandbox == PER_DEVICE
    return Recorder(
        config.record,
        board,
        per_device=per_device,
        inject=[spec.text for spec in config.inject],
        limit=config.record_limit,
        start=False,
        say=say,
    )


def _core_file(config: RunConfig, caller: Caller, say: Callable[[str], None]) -> CoreFile | None:
    if config.core is None:
        return None
    from kvmbox.parts.core_file.core_file import CoreFile

    return CoreFile(config.core, caller, always=config.core_always, say=say)


def _profiling(config: RunConfig) -> Profiling | None:
    if config.profile is None:
        return None
    from kvmbox.parts.profile.profiler import Profiling

    return Profiling(config.profile, config.profile_rate, config.guest)


def _exit_sampler(config: RunConfig, main_loop: MainLoop) -> ExitSampler | None:
    if not config.sample_exits:
        return None
    from kvmbox.parts.exit_samples.exit_sources import ExitSampler

    sampler = ExitSampler()
    main_loop.standstill.admit(sampler)
    return sampler


def _source_tree(config: RunConfig) -> SourceTree | None:
    if not config.source:
        return None
    from kvmbox.parts.crash_report.source_tree import SourceTree

    return SourceTree(config.source)


def _look(symbols: Sequence[SymbolFile], tree: SourceTree | None, core: CoreFile | None) -> Look:
    """What examines the guest when it has come to its end, and writes the file of --core."""

    def look(
        threads: Sequence[VcpuThread], guest: GuestVm, outcome: Outcome, profile: Profile | None
    ) -> Aftermath:
        text = tree.line if tree is not None else no_source
        found = examine(threads, guest.memory, outcome, symbols, profile, text)
        if core is not None:
            core.write(threads, guest, outcome, symbols)
        return found

    return look


def _end_transfers(transfers: TransferThread, say: Callable[[str], None]) -> None:
    if not transfers.close():
        # Guest memory may be closed now: what the thread would still write to it is refused, and ends there.
        say("a transfer of a device does not end: its file does not answer")
    if transfers.problem is not None:
        say(transfers.problem)


class GuestFactory(Value):
    """What a reboot needs to build the next virtual machine on the same memory."""

    kvm: Kvm
    memory: GuestMemory
    source: BootSource
    cpus: int
    cpu: str
    waits: bool

    def build(self) -> GuestVm:
        """A VM with the image loaded, in memory that is all zero."""
        return self._start(self.source)

    def continue_from(self, start: Start) -> GuestVm:
        """A VM in the state of a snapshot, whose memory this one is."""
        return self._start(BootSource(lambda _memory: start.plan), start)

    def resume(self, plan: BootPlan) -> GuestVm:
        """A fresh VM on the memory as it is, which starts as `plan` says."""
        return self._start(BootSource(lambda _memory: plan))

    def _start(self, source: BootSource, state: Start | None = None) -> GuestVm:
        return GuestVm(
            self.kvm, self.memory, source, cpus=self.cpus, cpu=self.cpu, waits=self.waits, state=state
        )


def _boot_until_end(
    guest: GuestVm, factory: GuestFactory, devices: Devices, main_loop: MainLoop, judge: Judge
) -> None:
    """Run the guest, and again after each reset and each suspension, until the outcome is decided."""
    while True:
        try:
            devices.router.attach(guest.vm.irq_line, guest.vm.fileno(), are_set=guest.lines_are_set)
            if guest.boot.after_bios:
                start_timer(devices)
            again = main_loop.run_until_reset(guest)
            main_loop.each_slice()  # once more: the memory of this boot may be cleared
            again = again and judge.outcome is None
        except DeviceProcessError as error:
            main_loop.device_failed(error)
            return
        finally:
            devices.router.detach()
            _close_unused(guest.close, [lambda: main_loop.has_live_vcpu])
        if not again:
            return
        suspension = main_loop.suspension
        try:
            if suspension is not None and not sleep_until_woken(suspension, devices, judge, main_loop.sleep):
                return
            # What was asked for before the reset must not reach the memory of the next boot.
            if devices.transfers is not None and not devices.transfers.quiesce():
                raise KvmboxError("a transfer of a device does not end: its file does not answer")
            for channel in devices.pool.channels:
                channel.request(protocol.RESET)
            if devices.injection is not None:
                devices.injection.reset()
            if suspension is not None:
                tell_wake_up(suspension, devices)
        except DeviceProcessError as error:
            main_loop.device_failed(error)
            return
        if suspension is None:
            factory.memory.clear()
            guest = factory.build()
            continue
        plan = waking_plan(factory.memory, guest.boot)
        if isinstance(plan, Outcome):
            judge.ends(plan)
            return
        guest = factory.resume(plan)


def _with_details(
    outcome: Outcome,
    aftermath: Aftermath | None,
    core: str | None,
    console: Console,
    view: ScreenView,
    boot_hint: str,
) -> Outcome:
    """The outcome with its screen, and what the guest's state tells of an end that was a bad one: that is
    more to the point than a hint that fits any such end. `core` is the path of the core file. `boot_hint`
    names another way to boot.
    """
    if outcome.status in (CLEAN, UNEXPECTED) or aftermath is None:
        aftermath = Aftermath()
    explained = outcome.status in EXPLAINED
    hints = (aftermath.diagnosis or outcome.hint, boot_hint if explained else "")
    report = aftermath.report or outcome.report
    last_lines = last_lines_of(console.last_lines()) if aftermath.report else ()
    report = "\n".join((report, *(f"Last line of {port}: {text}" for port, text in last_lines)))
    return Outcome(
        outcome.status,
        outcome.reason,
        outcome.error,
        "; ".join(hint for hint in hints if hint) or None,
        view.add_to(report) if explained else report,
        aftermath.cpus,
        core,
        view.screen,
        last_lines,
    )


def _with_losses(judged: Outcome, problem: str | None, missing_snapshot: str | None) -> Outcome:
    """The outcome against what the host did not take, or was not given."""
    if missing_snapshot is not None and (judged.status == CLEAN or judged.status & 1):
        return Outcome(UNEXPECTED, f"{judged.reason}, before {missing_snapshot}", error=True)
    # A run whose output was lost has not succeeded; the guest's own failures and kvmbox's keep their word.
    if problem is not None and (judged.status == CLEAN or judged.status & 1):
        return Outcome(KVMBOX_FAILED, problem, error=True)
    return judged
