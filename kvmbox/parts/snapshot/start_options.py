"""The options of a machine that starts from a snapshot: what the snapshot decides, and what is free."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.host.console.captured_port import Capture
from kvmbox.host.console.serial_backends import Backends, serial_plan
from kvmbox.parts.snapshot.description import Description
from kvmbox.parts.snapshot.disks import requests_of
from kvmbox.run.options.choices import FirmwareFile, ModuleSpec
from kvmbox.run.options.definition import IMAGE
from kvmbox.run.options.option_table import OPTIONS, names

OF_THE_SNAPSHOT: Final = names(IMAGE)
"""The options of a machine that a snapshot decides."""


def options_of(description: Description, memory_size: int) -> tuple[str, dict[str, Any]]:
    """The image of the machine in a snapshot, and the options of the machine."""
    board, boot = description.board, description.boot
    own = boot.as_dict() | board.as_dict() | {"memory": memory_size, "debug_exit": board.debug_exit_port}
    for name in ("guest", "format", "files", "debug_exit_port"):
        del own[name]
    return boot.guest, own | {
        "modules": [ModuleSpec(path, arguments) for path, arguments in boot.modules],
        "fw_cfg": [FirmwareFile(name, path) for name, path in boot.fw_cfg],
        "disks": requests_of(description.disks, are_cds=False),
        "cdroms": requests_of(description.disks, are_cds=True),
        "serial": dict.fromkeys(board.serial, "null"),
    }


def merged(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a machine from a snapshot, which has its `own` and is `given` others.

    Raises UsageError.
    """
    for name in OF_THE_SNAPSHOT:
        if name in given:
            raise UsageError(
                f"{OPTIONS[name].spelling} contradicts --from", hint="the machine is as the snapshot has it"
            )
    return {**own, **given, "serial": _serial(own["serial"], OPTIONS["serial"].take(given.get("serial", ())))}


def _serial(ports: Collection[str], given: Backends) -> Backends:
    """What `given` says of the ports that the machine has, and nothing at the others."""
    plan = serial_plan(given, Capture())  # which ports, and whether it can be, is all that is asked
    for port in plan:
        if port not in ports:
            raise UsageError(f"--serial {port}: the machine of the snapshot has no {port}")
    more = [port for port in ports if port not in plan]
    if isinstance(given, Mapping):
        return {**given, **dict.fromkeys(more, "null")}
    return [*given, *(f"{port}=null" for port in more)]
