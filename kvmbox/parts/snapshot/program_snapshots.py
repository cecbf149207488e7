"""A snapshot that a program asks for: `Machine.snapshot`."""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.host.files.atomic_file import Destination
from kvmbox.parts.snapshot.snapshots import Request, refused
from kvmbox.run.api.paused_calls import NoMachineError, Requests
from kvmbox.run.part import Standing


def write(path: str, requests: Requests) -> None:
    """Write the machine to a file, as it is now. Raises SnapshotFileError."""
    destination = Destination(path)
    request = Request(destination.path, destination.descriptor, destination.commit)

    def take(machine: Standing) -> Callable[[], None]:
        finish: Callable[[], None] = machine.part("snapshot").take(request)
        return finish

    try:
        try:
            requests.ask(take)
        except NoMachineError as error:
            raise refused(destination.path, error) from error
        if request.problem is not None:
            raise refused(destination.path, request.problem)
    finally:
        destination.abandon()
        destination.close()
