"""`kvmbox` with another spawner, as a program: for tests that need a device process which lies, or a host
without Landlock.

Usage: other_spawner.py TYPES ENTRY LANDLOCK-LIMIT ARGUMENTS-OF-KVMBOX... The processes of TYPES, with commas
between them and "standby" for those in reserve, run `liar:ENTRY` in place of their models; "standby:2" means
the first two of those; '-' for both leaves all as it is. With TYPES "spawner" SIGSTOP stops the spawner
at its start. Processes whose ENTRY is "unborn" are killed before the VMM hears that they are jailed. Those
whose ENTRY is "picky" are honest, and insist on Landlock. Liars speak over a socket: it is the ipc if no
other one is named. LANDLOCK-LIMIT is the highest Landlock ABI to use.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from kvmbox.cli.entry import entry_point
from kvmbox.jail import layers
from kvmbox.remote.process import prestart
from kvmbox.remote.process.spawner_client import DEFAULT_ENTRY, DeviceProcess, SpawnerClient

PICKY = "liar:picky"
PATIENCE_NS = 30_000_000_000


def main() -> None:
    device_type, entry, landlock_limit = sys.argv[1], f"liar:{sys.argv[2]}", int(sys.argv[3])
    del sys.argv[1:4]
    if device_type != "-" and "--ipc" not in sys.argv:
        sys.argv[2:2] = ["--ipc", "socketpair"]  # which the liars speak
    left = {}
    for named in device_type.split(","):
        name, _, count = named.partition(":")
        left[name] = int(count or 1_000)

    class OtherSpawner(SpawnerClient):
        @classmethod
        def start(cls, **options: Any) -> SpawnerClient:
            entries = [DEFAULT_ENTRY] if device_type == "-" or entry == PICKY else [DEFAULT_ENTRY, entry]
            directory = str(Path(__file__).parent)
            options |= {"payload_directory": directory, "landlock_limit": landlock_limit}
            client = super().start(entries=entries, **options)
            if device_type == "spawner":
                os.kill(client.process.pid, signal.SIGSTOP)
            return client

        def wait_ready(self, process: DeviceProcess, *arguments: int) -> None:
            if entry == "liar:unborn" and process.type in left:
                process.kill()
                while process.wait_status is None:
                    assert self._pump(time.monotonic_ns() + PATIENCE_NS)
                process.layers = 0
            super().wait_ready(process, *arguments)

        def spawn(self, *arguments: Any, **options: Any) -> DeviceProcess:
            name = arguments[0]
            if left.get(name, 0) > 0:
                left[name] -= 1
                if entry == PICKY:
                    options["require"] |= layers.LANDLOCK
                else:
                    options["entry"] = entry
            return super().spawn(*arguments, **options)

    prestart.OWN.kind = OtherSpawner
    entry_point()


main()
