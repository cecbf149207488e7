"""One run from start to end: the order in which everything is started, and how it ends in every case.

The order is part of the design. The spawner starts first, because it must not inherit anything. Device
processes start while the VMM reads the image and opens /dev/kvm. The vCPU starts when everything is ready. If
a step fails, everything that is open is closed in reverse order. What only some runs have is in their parts
(`part`), which are told of each stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from kvmbox.errors import DeviceProcessError
from kvmbox.host.signals import Wakeup
from kvmbox.kvm.system import Kvm
from kvmbox.outcome import (
    CLEAN,
    GUEST_CRASHED,
    KVMBOX_FAILED,
    TIMED_OUT,
    UNEXPECTED,
    UNKNOWN_EXIT,
    Outcome,
)
from kvmbox.remote import prestart
from kvmbox.remote.pool import DevicePool
from kvmbox.remote.transports import TRANSPORTS
from kvmbox.run.boot_source import BootSource
from kvmbox.run.builder import Devices, GuestVm, board_of, refuse_conflicts
from kvmbox.run.consoles import console_of
from kvmbox.run.designs import design_here
from kvmbox.run.loop import MainLoop
from kvmbox.run.part import Finding, Lost, Opening, Standing, Unmet
from kvmbox.run.parts import Parts, origin_of, prepare_report, window_of
from kvmbox.run.reboot import GuestFactory, boot_until_end, close_unused
from kvmbox.run.result import Draft, RunResult
from kvmbox.run.settling import Settling
from kvmbox.run.statistics import collect
from kvmbox.run.timeline import Timeline
from kvmbox.sandbox.seccomp import device_filter
from kvmbox.stand_ins import Value

if TYPE_CHECKING:
    from kvmbox.boot.files import HostFiles
    from kvmbox.firmware.fw_cfg import FwCfgItem
    from kvmbox.host.console import Console
    from kvmbox.host.placement import Placement
    from kvmbox.host.transfers import TransferThread
    from kvmbox.judge import Judge
    from kvmbox.memory import GuestMemory
    from kvmbox.run.caller import Caller
    from kvmbox.run.config import RunConfig
    from kvmbox.run.origin import Origin
    from kvmbox.run.requests import Requests

EXPLAINED: Final = (GUEST_CRASHED, UNKNOWN_EXIT, TIMED_OUT)
"""The ends after which another way to boot is worth a hint."""


def run(
    config: RunConfig,
    caller: Caller,
    *,
    judge: Judge,
    say: Callable[[str], None],
    started: Callable[[], None] = lambda: None,
    settled: Callable[[RunResult], None] = lambda _result: None,
    timeline: Timeline | None = None,
    requests: Requests | None = None,
) -> RunResult:
    """Boot `config.guest` and run it to its end, in this thread; returns how it ended, judged by what was
    expected of it, and what it did.

    `judge` ends the run. `say` tells the person a line, `started` hears that the guest is about to run, and
    `settled` hears what is returned before the processes and guest memory are closed. `requests` are those
    of a program. Raises KvmboxError where the run could not start; a run that started has a result.
    """
    timeline = timeline or Timeline()
    if config.files_written:
        from kvmbox.host.distinct import refuse_shared

        refuse_shared(config.files_written, config.files_read)
    starting = caller.starting(config.timeout, timeline)
    # Signal handlers are put back last of all: until then a signal cannot change what was decided. The
    # start's time-out is left before the clean-up begins: no alarm interrupts that.
    with ExitStack() as last, ExitStack() as cleanup, starting:
        opened = _open(config, caller, judge, say, starting.at, timeline, cleanup)
        machine, guest, factory = _build(opened, caller, judge, timeline, cleanup, last)
        try:
            settling = _stand(machine, opened, requests, timeline)
            opened.pool.ready_by = None
            starting.over()
            caller.ready(judge, machine.loop.wakeup)
            _confine(machine, opened.parts, caller, timeline)
            started()
            _go(guest, factory, machine, settling)
        finally:
            outcome = None if judge.outcome is None else judge.verdict
            findings, lost = _end(machine, opened.parts, outcome)
        timeline.mark("guest ended")
        assert outcome is not None
        result = _judged(outcome, findings, lost, machine, opened, timeline)
        settled(result)
    timeline.mark("closed")
    return result


class _Opened(Value):
    """What a run has before there is a virtual machine: its processes have been asked for."""

    opening: Opening
    parts: Parts
    origin: Origin
    files: HostFiles
    source: BootSource
    pool: DevicePool
    placement: Placement


def _open(
    config: RunConfig,
    caller: Caller,
    judge: Judge,
    say: Callable[[str], None],
    ready_by: int | None,
    timeline: Timeline,
    cleanup: ExitStack,
) -> _Opened:
    """Start the spawner, read the image, open what parts need, and ask for the device processes."""
    parts, origin = Parts(config), origin_of(config)
    files = origin.files()
    items: tuple[FwCfgItem, ...] = ()
    with origin.blamed():
        if config.fw_cfg:
            from kvmbox.run.fw_cfg_files import read_files

            items = read_files(config, files, say)
        board_of(config, fw_cfg=items)  # what contradicts itself is refused before anything starts
    placement = prestart.OWN.place(config.pin, config.cpus)
    cleanup.callback(placement.close)
    design = design_here(config.design, config.require, placement, say)
    pool = DevicePool(design)
    cleanup.callback(pool.close)
    pool.ready_by = ready_by
    with origin.blamed():
        source = BootSource.read(config, files)  # it tells which devices there are
        opening = Opening(config, caller, judge, source, say)
        parts.equip(opening, cleanup)
        opening.complete(
            board_of(config, bios=source.has_bios, drives=opening.drives, fw_cfg=(*source.fw_cfg, *items))
        )
        refuse_conflicts(config, opening.board)
    origin.check_board(opening.board)  # before a part empties a file
    parts.open(opening)
    pool.tap = opening.tap
    timeline.mark("spawner started")
    transport = TRANSPORTS[design.ipc]
    pool.launch(
        opening.board,
        device_filter(pipes=transport.uses_pipes) if design.filters else b"",
        cpu=placement.cpu,
        spare_cpus=placement.spares,
        may_spin=transport.spins and placement.has_room_to_spin,
        require=config.require,
        on_demand=True,
    )
    timeline.mark("device processes asked for")
    return _Opened(opening, parts, origin, files, opening.source, pool, placement)


def _build(
    opened: _Opened,
    caller: Caller,
    judge: Judge,
    timeline: Timeline,
    cleanup: ExitStack,
    last: ExitStack,
) -> tuple[Standing, GuestVm, GuestFactory]:
    """Build the virtual machine, the console, the main loop and the devices, none of which runs."""
    config, say, source = opened.opening.config, opened.opening.say, opened.source
    memory = opened.origin.memory(config.memory_size)
    if opened.origin.memory_stage:
        timeline.mark(opened.origin.memory_stage)
    users: list[Callable[[], bool]] = []  # what tells whether a thread still uses the guest's memory
    cleanup.callback(close_unused, memory.close, users)
    kvm = cleanup.enter_context(Kvm.open(config.kvm_path))
    factory = GuestFactory(kvm, memory, source, config.cpus, config.cpu, caller.waits_for_kernel)
    guest = factory.first(opened.origin)
    cleanup.callback(close_unused, guest.close, users)
    if guest.not_hidden:
        say(f"--cpu {config.cpu}: this host's KVM shows all the same: {', '.join(guest.not_hidden)}")
    timeline.mark("virtual machine built")
    prepare_report(config, emulated=guest.is_pvm)  # while device processes jail themselves
    wakeup = Wakeup()
    cleanup.callback(wakeup.close)
    console = console_of(config, judge, caller, has_bios=source.has_bios, say=say, wake=wakeup.wake)
    cleanup.callback(console.close)
    main_loop = MainLoop(
        config,
        judge,
        console,
        wakeup,
        caller,
        cpu=opened.placement.cpu,
        started=timeline.started,
        summon=opened.parts.guest_ends,
        say=say,
    )
    users.append(lambda: main_loop.has_live_vcpu)
    cleanup.callback(main_loop.close)
    last.callback(caller.release)
    try:
        devices = _devices(opened, memory, console, main_loop, judge)
    except BaseException:
        console.finish()
        raise
    cleanup.callback(devices.router.close)
    if devices.transfers is not None:
        cleanup.callback(_end_transfers, devices.transfers, say)
    timeline.mark("devices ready")
    standing = Standing(
        *(config, judge, say, kvm, opened.opening.board, source, opened.files, memory),
        *(devices, console, main_loop, opened.parts.summon),
    )
    return standing, guest, factory


def _devices(
    opened: _Opened, memory: GuestMemory, console: Console, main_loop: MainLoop, judge: Judge
) -> Devices:
    """Connect the device processes. Raises SandboxError, DeviceProcessError."""
    opening = opened.opening
    devices = Devices(
        opening.board,
        opened.pool,
        console,
        judge,
        reset=main_loop.ends.reset_requested,
        suspend=main_loop.ends.suspend_requested,
        deadline_changed=main_loop.deadline_changed,
        prepare=partial(main_loop.prepare, opening.loss_policy),
        ram=memory,
        stores=opening.stores,
        wake=main_loop.wakeup.wake,
        shims=opening.shims,
        exact=opening.exact,
        aperture=lambda index, effect: window_of(main_loop, devices).check(index, effect),
    )
    devices.disks = opening.disks
    main_loop.take_devices(devices)
    return devices


def _stand(machine: Standing, opened: _Opened, requests: Requests | None, timeline: Timeline) -> Settling:
    """Give the machine its first state, and attach whoever wants to see it. The last one settles events."""
    opened.origin.resume(machine.devices, machine.console)
    if opened.origin.resumed_stage:
        timeline.mark(opened.origin.resumed_stage)
    if machine.config.start is not None:
        window_of(machine.loop, machine.devices).resume()
    opened.parts.attach(machine)
    if requests is not None:
        requests.attach(machine)
    return _settling(machine)


def _settling(machine: Standing) -> Settling:
    """What the guest has written before an event is judged before it. Behind all triggers of the judge."""
    console, loop, config = machine.console, machine.loop, machine.config
    steps = [console.show_withheld, loop.standstill.slice]
    if config.uart_pace:
        from kvmbox.run.stopped_time import drain

        steps.insert(0, partial(drain, machine.devices, loop.watch.talkers, loop.rearm))

    def hold() -> None:
        console.wake_waiters()  # a vCPU thread that waits for room cannot stand still
        loop.standstill.call()

    settling = loop.settling = Settling(machine.judge, steps)
    loop.standstill.admit(settling)
    machine.judge.connect(hold, paced=tuple(config.serial) if config.uart_pace else ())
    return settling


def _confine(machine: Standing, parts: Parts, caller: Caller, timeline: Timeline) -> None:
    """Confine the process, if it is to be, and start the threads: they inherit what confines it."""
    loop = machine.loop
    loop.confinement = caller.confine(
        machine.devices.pool,
        machine.config,
        readable=parts.readable,
        accepts=parts.accepts,
        disks=parts.has_disks,
    )
    if loop.confinement is not None:
        timeline.mark("confined")
    parts.start()
    machine.console.start()
    if machine.devices.transfers is not None:
        machine.devices.transfers.start()
    loop.start_router()


def _go(guest: GuestVm, factory: GuestFactory, machine: Standing, settling: Settling) -> None:
    """Run the guest to its end. All failures of device processes are outcomes."""
    devices, loop = machine.devices, machine.loop
    try:
        try:
            boot_until_end(guest, factory, devices, loop, machine.judge)
        except DeviceProcessError as error:
            loop.ends.device_failed(error)
        settling.end()
        if machine.config.uart_pace:
            from kvmbox.run.stopped_time import drain

            drain(devices, loop.watch.talkers, loop.rearm)
    except DeviceProcessError as error:
        loop.ends.device_failed(error)
    except KeyboardInterrupt:
        # The third signal that asks for the end, when two have not brought it.
        machine.judge.decide(loop.ends.by_signal)


def _end(machine: Standing, parts: Parts, outcome: Outcome | None) -> tuple[list[Finding], str | None]:
    """Show what is left to show, give the terminal back, and let all parts end, whatever fails. Returns what
    they have found, and why output was lost, if it was.
    """
    try:
        if outcome is not None:
            parts.show()
    finally:
        try:
            lost = machine.console.finish()
        finally:
            findings = parts.ended(outcome)
    return findings, lost


def _judged(
    outcome: Outcome,
    findings: Sequence[Finding],
    lost: str | None,
    machine: Standing,
    opened: _Opened,
    timeline: Timeline,
) -> RunResult:
    """The result of a run that has ended with `outcome`. `lost` is why output was lost, if it was."""
    losses = [Lost(lost, hint="make room there" if "No space" in lost else None)] if lost else []
    losses += [one for one in findings if isinstance(one, Lost)]
    judged = _against(outcome, [one for one in findings if isinstance(one, Unmet)], losses)
    for one in losses:
        if not one.announced and judged.reason != one.reason:
            machine.say(one.reason)
    draft = Draft(judged)
    opened.parts.report(draft)
    if judged.status in EXPLAINED:
        draft.more_hints.append(opened.source.hint)
    devices, loop, console = machine.devices, machine.loop, machine.console
    statistics = collect(devices, loop, console, timeline, opened.pool, draft.facts)
    capture = machine.config.console
    return draft.finished(statistics, b"" if capture is None else capture.output)


def _against(judged: Outcome, unmet: Sequence[Unmet], losses: Sequence[Lost]) -> Outcome:
    """The outcome against what the host did not take, or was not given: a run with that has not succeeded.

    The guest's own failures and kvmbox's keep their word.
    """
    if judged.status != CLEAN and not judged.status & 1:
        return judged
    if unmet:
        return Outcome(UNEXPECTED, f"{judged.reason}, before {unmet[0].reason}", error=True)
    return Outcome(KVMBOX_FAILED, losses[0].reason, error=True, hint=losses[0].hint) if losses else judged


def _end_transfers(transfers: TransferThread, say: Callable[[str], None]) -> None:
    if not transfers.close():
        # Guest memory may be closed now: what the thread would still write to it is refused, and ends there.
        say("a transfer of a device does not end: its file does not answer")
    if transfers.problem is not None:
        say(transfers.problem)
