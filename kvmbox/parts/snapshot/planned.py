"""The snapshots that a run is to take by itself (--snapshot-when): files, conditions, and who takes them.

A file is opened before the VMM confines itself. So a wrong path is an error of the start, and no right to
create files is left. See `host.destination`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from kvmbox.board import DeviceSpec
from kvmbox.boot.files import HostFiles
from kvmbox.bus import Mapping
from kvmbox.errors import SnapshotFileError, UsageError
from kvmbox.host.console import Console
from kvmbox.judge import Judge
from kvmbox.kvm.system import Kvm
from kvmbox.outcome import CLEAN, Outcome
from kvmbox.parts.snapshot.snapshots import PortWatch, Request, Snapshots
from kvmbox.run.builder import Devices
from kvmbox.run.caller import Caller
from kvmbox.run.config import RunConfig
from kvmbox.run.loop import MainLoop

if TYPE_CHECKING:
    from kvmbox.host.destination import Destination
    from kvmbox.parts.snapshot.capture import Taker


class PlannedSnapshots:
    """The files of --snapshot-when, and the wiring of their conditions."""

    def __init__(
        self,
        config: RunConfig,
        board: Sequence[DeviceSpec],
        snapshots: Snapshots,
        caller: Caller,
        judge: Judge,
    ) -> None:
        """Open the files. Raises UsageError for a port of a device, SnapshotFileError for a file."""
        self._config = config
        self._snapshots = snapshots
        self._judge = judge
        self._destinations: list[Destination] = []
        self._requests: list[Request] = []
        self._rename: Callable[[int], None] | None = None
        self._end: Callable[[], None] | None = None
        self._taker: Taker | None = None
        if not config.snapshot_when:
            return
        _refuse_ports_of_devices(config, board)
        # What it loads cannot be loaded any more when the VMM is confined.
        import kvmbox.parts.snapshot.capture  # noqa: F401
        from kvmbox.host.destination import Destination

        try:
            for number, condition in enumerate(config.snapshot_when):
                destination = Destination(condition.path)
                self._destinations.append(destination)
                commit = partial(self._commit, number)
                request = Request(condition.path, destination.descriptor, commit, judge.end_work)
                self._requests.append(request)
            self._rename, self._end = caller.committer(self._destinations)
        except OSError as error:
            self.close()
            raise SnapshotFileError(f"cannot write snapshots: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def _commit(self, number: int) -> None:
        assert self._rename is not None
        self._rename(number)

    def attend(
        self,
        main_loop: MainLoop,
        kvm: Kvm,
        files: HostFiles,
        devices: Devices,
        console: Console,
        say: Callable[[str], None],
    ) -> None:
        """Take the snapshots that are wanted from now on."""
        for condition, request in zip(self._config.snapshot_when, self._requests, strict=True):
            trigger = partial(self._want, request)
            come = partial(self._judge.triggered, trigger)
            self._snapshots.plan(condition, request, come)
            if condition.text is not None:
                self._judge.watch(condition.text, trigger)
            elif condition.port is not None:
                devices.ports.attach(Mapping(condition.port, 1, PortWatch(come)))

        def take(request: Request) -> Callable[[], None]:
            if self._taker is None:
                from kvmbox.parts.snapshot.capture import Taker

                self._taker = Taker(kvm, self._config, files, devices, console, say=say)
            with main_loop.timeless() as guest:
                finish = self._taker.take(request, guest, main_loop.ring)
            if self._config.snapshot_stop:
                finish()  # before the guest goes on: what it prints then belongs to no run
                return lambda: None
            return finish

        self._snapshots.attend(main_loop.standstill.call, take)
        main_loop.standstill.admit(self._snapshots)

    def _want(self, request: Request) -> Outcome | None:
        """Its condition holds. With --snapshot-stop the last one of them decides. By the judge."""
        if not request.begun:
            self._judge.begin_work()
            self._snapshots.want(request)
        if self._config.snapshot_stop and all(one.begun for one in self._requests):
            return Outcome(CLEAN, "the snapshots are written (--snapshot-stop)")
        return None

    @property
    def problem(self) -> str | None:
        """The first reason why a planned snapshot could not be written."""
        for request in self._requests:
            if request.done.is_set() and request.problem is not None:
                return f"cannot write snapshot '{request.path}': {request.problem}"
        return None

    def close(self) -> None:
        """Remove what was not finished, and close the files. Idempotent."""
        if self._end is not None:
            self._end()
            self._end = None
        else:
            for destination in self._destinations:
                destination.abandon()
        for destination in self._destinations:
            destination.close()


def _refuse_ports_of_devices(config: RunConfig, board: Sequence[DeviceSpec]) -> None:
    for condition in config.snapshot_when:
        for device in board:
            for ports in device.ports:
                if condition.port is not None and ports.first <= condition.port < ports.first + ports.count:
                    raise UsageError(
                        f"--snapshot-when: port {condition.port:#x} belongs to {device.name}",
                        hint="choose one that no device has, such as 0x5f0",
                    )
