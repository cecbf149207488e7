"""--inject: faults between the devices and the guest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvmbox.contract.names import BOOT_DISK
from kvmbox.parts.inject.fault_table import disk_target, net_target
from kvmbox.parts.inject.injection import Injection, report
from kvmbox.parts.inject.spec import check_count, parse
from kvmbox.run.part import Opening, Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmbox.parts.inject.spec import Spec
    from kvmbox.run.result.run_result import Draft


class Inject(Part):
    """The faults of a run. Nobody is to take its end for that of a run without them: they are told."""

    def __init__(self, inject: Sequence[Spec]) -> None:
        """Raises UsageError."""
        check_count(inject)
        self._specs = inject
        self._injection: Injection
        self._say: Callable[[str], None] = lambda _line: None

    def open(self, opening: Opening) -> None:
        """See `Part`."""
        beside = [disk_target(drive.name) for drive in opening.disks]
        beside += [net_target(net.name) for net in opening.nets]
        self._injection = Injection(self._specs, [*opening.board, *beside])
        for net in opening.nets:
            net.wire = self._injection.wire_of(net.name, net.wire)
        for drive in opening.disks:
            for name in (drive.name, BOOT_DISK) if drive.is_image else (drive.name,):
                opening.stores[name] = self._injection.store_of(drive.name, opening.stores[name])
        opening.board[:] = self._injection.board_of(opening.board)
        opening.shims, self._say = self._injection, opening.say

    def add(self, text: str) -> None:
        """A further fault, of a device that has another one already. Raises UsageError."""
        self._injection.add(parse(text))

    def report(self, draft: Draft) -> None:
        """See `Part`."""
        counts = self._injection.counts
        draft.facts["injected"] = [count.as_dict() for count in counts]
        for line in report(counts):
            self._say(f"--inject: {line}")


PART = Inject
