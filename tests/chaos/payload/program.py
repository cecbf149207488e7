"""`kvmbox` whose device processes have gremlins, as a program, that tells who serves which device type.

Usage: program.py DESCRIPTOR SEED ARGUMENTS-OF-KVMBOX... A line `TYPE PID` is written to DESCRIPTOR for each
process that begins to serve: at the start of the run, and when a restart is done. One replacement in eight
dies at once, by SEED: then there must be another one. The line `TYPE 0` tells of its death.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvmbox.base.errors import DeviceProcessError
from kvmbox.cli.entry import entry_point
from kvmbox.parts.restart.recovery import Restart
from kvmbox.parts.restart.standby import StandbyProcesses
from kvmbox.remote.process import prestart
from kvmbox.remote.process.device_pool import DevicePool
from kvmbox.remote.process.late_starts import ProcessStarts
from kvmbox.remote.process.spawner_client import DeviceProcess, SpawnerClient
from kvmbox.remote.transport.interface import Link, Opens

ENTRY = "gremlin:main"
STILLBORN = 8


def main() -> None:
    descriptor, seed = int(sys.argv[1]), int(sys.argv[2])
    del sys.argv[1:3]
    dice = random.Random(seed)
    connect, replace, restarted = DevicePool.connect, StandbyProcesses.replace, StandbyProcesses.restarted
    start = ProcessStarts.start
    pools: list[DevicePool] = []
    unlucky: dict[str, bool] = {}

    class Spawner(SpawnerClient):
        @classmethod
        def start(cls, **options: Any) -> SpawnerClient:
            return super().start(entries=[ENTRY], payload_directory=str(Path(__file__).parent), **options)

        def spawn(self, *arguments: Any, **options: Any) -> DeviceProcess:
            return super().spawn(*arguments, **options, entry=ENTRY)

    def tell(name: str) -> None:
        process = pools[0].members[name].process
        assert process is not None
        os.write(descriptor, f"{name} {process.pid}\n".encode())

    def telling_connect(pool: DevicePool, grants: Mapping[str, Any], **options: Any) -> None:
        connect(pool, grants, **options)
        pools.append(pool)
        for name, member in pool.members.items():
            if member.process is not None:  # or it starts when its devices are used
                tell(name)

    def telling_start(starts: ProcessStarts, name: str) -> Opens:
        link = start(starts, name)
        tell(name)
        return link

    def killing_replace(standby: StandbyProcesses, name: str, error: DeviceProcessError) -> Link:
        link = replace(standby, name, error)
        unlucky[name] = not unlucky.get(name) and dice.randrange(STILLBORN) == 0
        process = pools[0].members[name].process
        if unlucky[name] and process is not None:
            os.write(descriptor, f"{name} 0\n".encode())
            process.kill()  # by the spawner, a moment later: kvmbox's own filter allows no kill(2)
        return link

    def telling_restarted(standby: StandbyProcesses, restart: Restart) -> None:
        restarted(standby, restart)
        tell(restart.device_type)

    prestart.OWN.kind = Spawner
    for owner, name, function in (
        (DevicePool, "connect", telling_connect),
        (ProcessStarts, "start", telling_start),
        (StandbyProcesses, "replace", killing_replace),
        (StandbyProcesses, "restarted", telling_restarted),
    ):
        setattr(owner, name, function)
    entry_point()


main()
