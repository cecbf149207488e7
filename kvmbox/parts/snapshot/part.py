"""--snapshot-when, --snapshot-stop, and snapshots that a program asks for: files, conditions, who takes them.

A file is opened before the VMM confines itself. So a wrong path is an error of the start, and no right to
create files is left. See `host.files.atomic_file`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from kvmbox.base.errors import UsageError
from kvmbox.base.outcome import CLEAN, Outcome
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.host.files.atomic_file import Destination
from kvmbox.parts.snapshot.capture import Taker
from kvmbox.parts.snapshot.snapshots import PortWatch, Request, Snapshots
from kvmbox.remote.bus.routing import Mapping
from kvmbox.run.options.choices import SnapshotCondition
from kvmbox.run.part import Finding, Lost, Opening, Part, Standing, Unmet

if TYPE_CHECKING:
    from kvmbox.base.judge import Judge


class TakesSnapshots(Part):
    """The files of --snapshot-when, and the wiring of their conditions; and snapshots for a program."""

    def __init__(
        self, snapshot_when: Sequence[SnapshotCondition] = (), *, snapshot_stop: bool = False
    ) -> None:
        self._conditions = snapshot_when
        self._stops = snapshot_stop
        self._snapshots = Snapshots()
        self._destinations: list[Destination] = []
        self._requests: list[Request] = []
        self._comes: list[Callable[[], None]] = []
        self._end: Callable[[], None] = lambda: None
        self._take: Callable[[Request], Callable[[], None]]
        self._judge: Judge

    def open(self, opening: Opening) -> None:
        """See `Part`. Raises UsageError for a port of a device, SnapshotFileError for a file."""
        _refuse_ports_of_devices(self._conditions, opening.board)
        # The vCPU is to stand at the instruction that has printed a text.
        opening.exact |= any(condition.text is not None for condition in self._conditions)
        for condition in self._conditions:
            self._destinations.append(Destination(condition.path))
        rename, self._end = opening.caller.committer(self._destinations)
        for number, file in enumerate(self._destinations):
            request = Request(file.path, file.descriptor, partial(rename, number), opening.judge.end_work)
            self._requests.append(request)

    def attach(self, machine: Standing) -> None:
        """See `Part`: take the snapshots that are wanted from now on."""
        self._judge = machine.judge
        at_port: dict[int, list[Callable[[], None]]] = {}
        for condition, request in zip(self._conditions, self._requests, strict=True):
            trigger = partial(self._want, request)
            come = partial(machine.judge.triggered, trigger)
            self._comes.append(come)
            self._snapshots.plan(condition, request, come)
            if condition.text is not None:
                machine.judge.watch(condition.text, trigger)
            elif condition.port is not None:
                at_port.setdefault(condition.port, []).append(come)
        for port, comes in at_port.items():
            machine.devices.ports.attach(Mapping(port, 1, PortWatch(comes)))
        taker = Taker(
            machine.kvm, machine.config, machine.files, machine.devices, machine.console, say=machine.say
        )

        def take(request: Request) -> Callable[[], None]:
            with machine.loop.timeless() as boot:
                finish = taker.take(request, boot.guest, boot.ring)
            if self._stops:
                finish()  # before the guest goes on: what it prints then belongs to no run
                return lambda: None
            return finish

        self._take = take
        self._snapshots.connect(machine.loop.standstill.call, take)
        machine.loop.standstill.admit(self._snapshots)

    def take(self, request: Request) -> Callable[[], None]:
        """Take a snapshot for a program, of a machine that stands still. Returns what is to be called when
        the guest goes on. Raises DeviceProcessError.
        """
        return self._take(request)

    def take_next(self) -> str:
        """Take the first snapshot that has not been taken, whatever its condition. Returns where it goes.

        Raises UsageError.
        """
        for request, come in zip(self._requests, self._comes, strict=True):
            if not request.begun:
                come()
                return request.path
        raise UsageError("each snapshot of --snapshot-when has been taken")

    def _want(self, request: Request) -> Outcome | None:
        """Its condition holds. With --snapshot-stop the last one of them decides. By the judge."""
        if not request.begun:
            self._judge.begin_work()
            self._snapshots.want(request)
        if self._stops and all(one.begun for one in self._requests):
            return Outcome(CLEAN, "the snapshots are written (--snapshot-stop)")
        return None

    def ended(self, outcome: Outcome | None) -> Finding | None:
        """See `Part`."""
        del outcome
        if (missing := self._snapshots.end()) is not None:
            return Unmet(missing)
        for request in self._requests:
            if request.problem is not None:
                return Lost(f"cannot write snapshot '{request.path}': {request.problem}", announced=True)
        return None

    def close(self) -> None:
        """See `Part`: remove what was not finished, and close the files."""
        self._end()
        for destination in self._destinations:
            destination.abandon()
            destination.close()


def _refuse_ports_of_devices(conditions: Sequence[SnapshotCondition], board: Sequence[DeviceSpec]) -> None:
    for condition in conditions:
        for device in board:
            if any(condition.port in range(one.first, one.first + one.count) for one in device.ports):
                raise UsageError(
                    f"--snapshot-when: port {condition.port:#x} belongs to {device.name}",
                    hint="choose one that no device has, such as 0x5f0",
                )


PART = TakesSnapshots
