"""`kvmbox bench --exit none`: what kvmbox itself does between two KVM_RUNs, without KVM.

Exits are replayed from memory: the compiled run loop finds each in kvm_run, as if KVM_RUN had just returned,
and handles it with the channels, transports, processes and models of a run. So no virtual machine and no
/dev/kvm is needed, and no host's exit hides what is measured. The caches are warm, as an exit leaves them on
hosts whose exits are fast.

A host's exit and this together are what an access takes there, if the exit leaves the caches alone. That is
the model behind `replay_tables.PREDICTED`: a prediction, not a measurement.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

from kvmbox.base.compiled import compiled, is_compiled
from kvmbox.base.errors import UsageError
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.host.process.cpu_placement import place
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.process.device_pool import Design, DevicePool
from kvmbox.remote.transport.direct import direct_channels
from kvmbox.remote.transport.ipc_table import TRANSPORTS
from kvmbox.run.vcpu.late_writes import LateWrites
from kvmbox.sandbox.seccomp import device_filter
from kvmbox.tools.bench.measuring_plan import IPCS, NONE
from kvmbox.tools.bench.replay_path import Path
from kvmbox.tools.bench.replay_script import ACCESSES, COM1
from kvmbox.tools.bench.replay_tables import tables
from kvmbox.tools.bench.result_tables import Table
from kvmbox.tools.bench.statistics import median

if TYPE_CHECKING:
    from kvmbox.contract.device_spec import DeviceSpec

TIMES: Final = 20_000
"""How often each access is replayed in a round."""

ROUNDS: Final = 7


def _ignore(*_arguments: object) -> None:
    """What an effect does here."""


def _grants(device: DeviceSpec, output: Callable[[bytes], None], source: Any, late: Any) -> Grants:
    return Grants(
        device.name,
        irq_lines=[source(gsi) for gsi in device.irqs],
        output=output,
        input_room=_ignore,
        late_writes={0: late},
    )


@contextmanager
def path_to(ipc: str, output: Callable[[bytes], None] = _ignore) -> Iterator[Path]:
    """The path to processes over `ipc`, or to models in this process (NONE), which print to `output`. Raises
    SandboxError.
    """
    clock = compiled("loop", "CompiledClock")()
    clock.release()
    options = BoardOptions(serial_ports=("COM1",), rtc_base=0, memory_size=1 << 24)
    board = [device for device in pc_board(options) if device.name in ("COM1", "RTC", "debugcon")]
    router, late = compiled("loop", "CompiledRouter")(clock), LateWrites()  # of no virtual machine
    hears = late.add(COM1)
    grants = {device.name: _grants(device, output, router.source, hears) for device in board}
    if ipc == NONE:
        with closing(router):
            yield Path(direct_channels(board, grants, now=clock.now, deadline_changed=_ignore), late)
        return
    with closing(router), closing(place("auto")) as placement, closing(DevicePool(Design(ipc=ipc))) as pool:
        pool.launch(
            board,
            device_filter(pipes=TRANSPORTS[ipc].uses_pipes),
            cpu=placement.cpu,
            spare_cpus=placement.spares,
            may_spin=TRANSPORTS[ipc].spins and placement.has_room_to_spin,
        )
        found = os.sched_getaffinity(0)
        if placement.cpu is not None:
            os.sched_setaffinity(0, {placement.cpu})
        try:
            pool.connect(grants, now=clock.now, deadline_changed=_ignore)
            members = pool.members.values()
            yield Path([(pool.channel(member.device_type), member.devices) for member in members], late)
        finally:
            os.sched_setaffinity(0, found)


def measure(rounds: int, times: int) -> dict[str, dict[str, float]]:
    """Configuration → title of an access → median of the ns that it takes. The rounds are interleaved.

    UsageError without the compiled hot path. Raises SandboxError.
    """
    if not is_compiled():
        raise UsageError("--exit none measures the compiled hot path, and this is pure Python")
    samples: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for ipc in (NONE, *IPCS):
            with path_to(ipc) as path:
                for access in ACCESSES:
                    samples.setdefault(ipc, {}).setdefault(access.title, []).append(path.time(access, times))
    return {ipc: {title: median(taken) for title, taken in rows.items()} for ipc, rows in samples.items()}


def replay(rounds: int | None, divide: int | None) -> list[Table]:
    """The tables of a measurement of so many rounds, with a part of the accesses. As `measure`."""
    return tables(measure(rounds or ROUNDS, max(TIMES // (divide or 1), 1)))
