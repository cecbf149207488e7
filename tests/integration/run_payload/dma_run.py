"""A run with the DMA probe on its board, as a program: for there is no option of `kvmbox run` for that yet.

Usage: dma_run.py IMAGE DISK OPTIONS, where OPTIONS are JSON: parameters of `Machine`, `way` for a hostile
version of the probe, `grants` "none" for one that was granted nothing. The exit status is the run's.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from kvmbox.base.errors import KvmboxError
from kvmbox.contract.device_spec import DeviceSpec, Irq
from kvmbox.host.disk.transfers import BytesStore, FileStore
from kvmbox.run.api.machine import Machine
from kvmbox.run.frontend import ProcessOwner
from tests.support.dma import GSI, MEMORY_SIZE, probe


def device(options: dict[str, Any]) -> DeviceSpec:
    """The probe that the options ask for."""
    way = options.pop("way", None)
    grants = (Irq(GSI),) if options.pop("grants", None) == "none" else None
    return probe(way=None if way is None else way.encode(), grants=grants)


def main(image: str, disk: str, options: dict[str, Any]) -> int:
    """Run to the end; returns the exit status."""
    descriptor = os.open(disk, os.O_RDWR)
    machine = Machine(
        image,
        console="stdio",
        rtc_base=0,
        memory=MEMORY_SIZE,
        boot="real",
        devices=(device(options),),
        resources={"disk": FileStore(descriptor), "rom": BytesStore(bytes(4096))},
        say=lambda text: print(text, file=sys.stderr),
        **options,
    )
    try:
        result = machine.run_here(ProcessOwner())
    except KvmboxError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    if result.failed:
        print(f"error: {result.reason}", file=sys.stderr)
    return result.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
