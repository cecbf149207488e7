"""One run from start to end: the order in which everything is started, and how it ends in every case.

The order is part of the design. A run is prepared (`preparation`), and its machine put together (`assembly`).
The vCPU starts when everything is ready. If a step fails, everything that is open is closed in reverse order.
What only some runs have is in their parts (`part`), which are told of each stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import DeviceProcessError
from kvmbox.base.outcome import (
    CLEAN,
    GUEST_CRASHED,
    KVMBOX_FAILED,
    TIMED_OUT,
    UNEXPECTED,
    UNKNOWN_EXIT,
    Outcome,
)
from kvmbox.run.loop.output_drain import OutputDrain
from kvmbox.run.machine.assembly import assemble
from kvmbox.run.machine.guest_vm import GuestVm
from kvmbox.run.machine.reboot import GuestFactory, boot_until_end
from kvmbox.run.part import Finding, Lost, Standing, Unmet
from kvmbox.run.parts import Parts, window_of
from kvmbox.run.preparation import Prepared, prepare
from kvmbox.run.result.run_result import Draft, RunResult
from kvmbox.run.result.run_statistics import collect
from kvmbox.run.result.stage_times import Timeline

if TYPE_CHECKING:
    from kvmbox.base.judge import Judge
    from kvmbox.run.api.paused_calls import Requests
    from kvmbox.run.frontend import Caller
    from kvmbox.run.options.config import RunConfig

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
    `settled` hears what is returned before the processes and guest memory are closed. `requests` are
    those of a program. Raises KvmboxError where the run could not start; a run that started has a result.
    """
    timeline = timeline or Timeline()
    if config.files_written:
        from kvmbox.host.files.file_conflicts import refuse_shared

        refuse_shared(config.files_written, config.files_read)
    starting = caller.starting(config.timeout, timeline)
    # Signal handlers are put back last of all: until then a signal cannot change what was decided. The
    # start's time-out is left before the clean-up begins: no alarm interrupts that.
    with ExitStack() as cleanup, starting:
        cleanup.callback(caller.release)
        prepared = prepare(config, caller, judge, say, starting.at, timeline, cleanup)
        machine, guest, factory = assemble(prepared, timeline, cleanup)
        try:
            settling = _stand(machine, prepared, requests, timeline)
            prepared.pool.ready_by = None
            starting.over()
            caller.stands(machine, guest)
            caller.ready(judge, machine.loop.wakeup)
            _confine(machine, prepared.parts, caller, timeline)
            started()
            _go(guest, factory, machine, settling)
        finally:
            outcome = None if judge.outcome is None else judge.verdict
            findings, lost = _end(machine, prepared.parts, outcome)
        timeline.mark("guest ended")
        assert outcome is not None
        result = _judged(outcome, findings, lost, machine, prepared.parts, timeline)
        settled(result)
    timeline.mark("closed")
    return result


def _stand(
    machine: Standing, prepared: Prepared, requests: Requests | None, timeline: Timeline
) -> OutputDrain:
    """Give the machine its first state, and attach whoever wants to see it. The last one settles events."""
    prepared.origin.resume(machine.devices, machine.console)
    if prepared.origin.resumed_stage:
        timeline.mark(prepared.origin.resumed_stage)
    if machine.config.start is not None:
        window_of(machine.loop, machine.devices).resume()
    prepared.parts.attach(machine)
    if requests is not None:
        requests.attach(machine)
    return _settling(machine)


def _settling(machine: Standing) -> OutputDrain:
    """What the guest has written before an event is judged before it. Behind all triggers of the judge."""
    console, loop, config = machine.console, machine.loop, machine.config
    steps = [console.show_withheld, loop.standstill.slice]
    if config.uart_pace:
        from kvmbox.run.loop.paused_time import drain

        steps.insert(0, partial(drain, machine.devices, loop.watch.talkers, loop.rearm))

    def hold() -> None:
        console.wake_waiters()  # a vCPU thread that waits for room cannot stand still
        loop.standstill.call()

    settling = loop.settling = OutputDrain(machine.judge, steps)
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


def _go(guest: GuestVm, factory: GuestFactory, machine: Standing, settling: OutputDrain) -> None:
    """Run the guest to its end. All failures of device processes are outcomes."""
    devices, loop = machine.devices, machine.loop
    try:
        try:
            boot_until_end(guest, factory, devices, loop, machine.judge)
        except DeviceProcessError as error:
            loop.ends.device_failed(error)
        settling.end()
        if machine.config.uart_pace:
            from kvmbox.run.loop.paused_time import drain

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
    parts: Parts,
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
    parts.report(draft)
    if judged.status in EXPLAINED:
        draft.more_hints.append(machine.source.hint)
    devices, loop, console = machine.devices, machine.loop, machine.console
    statistics = collect(devices, loop, console, timeline, draft.facts)
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
