"""The life of a boot process: a fork of the template that starts one machine, tells its result, and exits.

    fork → own spawner, which starts at once → order → run, as `kvmbox run` does it → result → end of the VM

If the pool knows an order before it has a place for the boot, the machine is prepared ahead
(`prepared_machines`).

A boot process is to its guest what the process of `kvmbox run` is: it has a spawner of its own, which another
template has forked, and device processes of its own, and it confines itself before the guest starts
(docs/adr/confinement.md). Nothing of it survives: memory, descriptors, children and what confines it end with
the process.

The result is told before the processes and the VM end, so that the next boot need not wait for that.
"""

from __future__ import annotations

import fcntl
import gc
import os
from functools import partial
from typing import Any, Final, NoReturn

from kvmbox.base.errors import KvmboxError, UsageError
from kvmbox.base.outcome import INTERRUPTED, KVMBOX_FAILED
from kvmbox.host.process import early_signals
from kvmbox.jail import linux
from kvmbox.remote.process import prestart
from kvmbox.remote.process.spawner_client import SpawnerClient, device_entry
from kvmbox.run.api.machine import Machine
from kvmbox.run.frontend import ProcessOwner
from kvmbox.run.result.run_result import RunResult
from kvmbox.sandbox import scope
from kvmbox.tools.warm.boot_result import REFUSAL, WarmResult, pack_result
from kvmbox.tools.warm.console_dialogue import Dialogue
from kvmbox.tools.warm.lent_spawner import LentSpawner
from kvmbox.tools.warm.orders import PREPARE, BootOrder, Request, read_request
from kvmbox.tools.warm.prepared_machines import Ahead, AheadTimeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CHANNEL_FD: Final = 3

TITLE: Final = "kvmbox: boot"
PREPARED_TITLE: Final = "kvmbox: boot, prepared"


def live(channel: int, parent_pid: int, name: Callable[[str], None], spawner: Sequence[int]) -> NoReturn:
    """The life of a boot process, from the fork. It leaves by _exit, whatever happens.

    `name` gives it its title. `spawner` are the socket of a plain run's spawner and its lifeline, if it is to
    have one before there is an order.
    """
    status = 1
    try:
        kept = (channel, *spawner)
        parked = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, CHANNEL_FD + len(kept)) for one in kept]
        for number, one in enumerate(parked, CHANNEL_FD):
            os.dup2(one, number, inheritable=False)
        linux.close_range(CHANNEL_FD + len(kept))
        linux.die_with_parent(parent_pid)
        linux.unblock_signals(linux.SIGCHLD)
        name(TITLE)
        early_signals.listen()
        scope.OWN.take()
        if spawner:
            process = LentSpawner(CHANNEL_FD + 2)
            prestart.OWN.start(SpawnerClient(process, CHANNEL_FD + 1, (device_entry(),)))
        request = _next_request()
        if request is not None and request.order is not None:
            wanted = partial(_wanted, name) if request.kind == PREPARE else None
            _boot(request.order, wanted)
        status = 0
    finally:
        # Nothing ever returns into the template's loop.
        try:
            for end in early_signals.exit_callbacks:
                end()
        finally:
            os._exit(status)


def _machine(options: dict[str, Any]) -> Machine:
    """A machine with these options. Raises UsageError."""
    snapshot = options.pop("from_snapshot", None)
    try:
        return Machine(**options) if snapshot is None else Machine.from_snapshot(snapshot, **options)
    except TypeError as error:  # an option that does not exist, or has a value of another kind
        raise UsageError(f"wrong options: {str(error).removeprefix('Machine.__init__() ')}") from error


def _started(dialogue: Dialogue) -> None:
    """The guest is about to run."""
    gc.freeze()
    gc.enable()  # the template has stopped it
    dialogue.start()


def _next_request() -> Request | None:
    return read_request(lambda size: os.read(CHANNEL_FD, size))


def _wanted(name: Callable[[str], None]) -> int | None:
    """Wait until what was prepared is wanted: from when that counts, or None if it is not wanted."""
    name(PREPARED_TITLE)
    request = _next_request()
    name(TITLE)
    return None if request is None else request.at


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(CHANNEL_FD, view) :]


def _warm_result(result: RunResult, machine: Machine, answered: int, timeline: AheadTimeline) -> WarmResult:
    return WarmResult.decoded(
        result.encoded(),
        failed=result.failed,
        output=result.output,
        messages=tuple(machine.messages),
        answered=answered,
        durations=dict(timeline.stages),
        statistics=result.statistics.as_json(),
        screen=None if result.screen is None else result.screen.as_json(),
    )


def _boot(order: BootOrder, wanted: Callable[[], int | None] | None) -> None:
    """Boot. If there is something that waits until the boot is `wanted`, the guest starts behind that."""
    timeline = AheadTimeline()
    owner = ProcessOwner() if wanted is None else Ahead(order, timeline, wanted)
    sent = False

    def send(result: WarmResult) -> None:
        nonlocal sent
        sent = True
        _write(pack_result(result))

    def fail(status: int, reason: str, hint: str | None = None) -> None:
        timeline.mark("total")
        lines = tuple(machine.messages) if machine is not None else ()
        output = machine.output if machine is not None else b""
        send(WarmResult(status, reason, hint, "", "", True, output, lines, 0, dict(timeline.stages), {}))

    def settled(result: RunResult) -> None:
        assert machine is not None
        assert dialogue is not None
        answered = dialogue.finish()
        timeline.mark("total")
        send(_warm_result(result, machine, answered, timeline))
        if not (machine.config.design.has_processes or machine.config.parts or machine.config.start):
            os._exit(0)  # the VM is closed, and all else that is left ends with the process

    machine: Machine | None = None
    dialogue: Dialogue | None = None
    try:
        os.chdir(order.directory)
        machine = _machine(order.options)
        dialogue = Dialogue(machine, order.dialogue)
        if not machine.config.design.has_processes:
            prestart.OWN.drop()  # while it can be told to end
        machine.run_here(owner, timeline, started=partial(_started, dialogue), settled=settled)
    except BaseException as error:
        if sent:
            raise
        if isinstance(owner, Ahead) and not owner.is_wanted:
            _write(REFUSAL)
            return
        match error:
            case KvmboxError():
                fail(error.exit_status, str(error), error.hint)
            case KeyboardInterrupt():
                fail(INTERRUPTED, "interrupted before the start")
            case MemoryError():
                fail(KVMBOX_FAILED, "out of memory")
            case OSError() if error.filename:
                fail(KVMBOX_FAILED, f"a system call failed on '{error.filename}': {error.strerror}")
            case _:
                fail(KVMBOX_FAILED, f"internal error: {type(error).__name__}: {error}", "please report this")
