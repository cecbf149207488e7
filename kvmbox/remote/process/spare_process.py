"""A device process that is jailed before anybody knows what it is for.

A device process learns its models from its first request (HELLO). Until then all of them are alike, but for
the name that people see. So that of a plain run can be ordered as soon as there is a spawner: it jails itself
while the VMM imports its modules and reads its options, or while a warm worker waits for an order.
`DevicePool.launch` takes it if it is what it would have ordered. Otherwise its channel is closed, and it
exits.
"""

from __future__ import annotations

from typing import Final

from kvmbox.host.process.cpu_placement import Placement
from kvmbox.remote.process.spawner_client import DeviceProcess, SpawnerClient
from kvmbox.remote.process.spin_permits import SpinPermits
from kvmbox.remote.transport.interface import Link
from kvmbox.remote.transport.ipc_table import DEFAULT_IPC, TRANSPORTS, ipc_of, make_link
from kvmbox.sandbox.seccomp import device_filter

PLAIN: Final = "uart"
"""The device process that starts with every plain run."""


class SpareProcess:
    """A process on a link of the default kind, which nobody has asked anything yet."""

    def __init__(self, spawner: SpawnerClient, placement: Placement) -> None:
        """Order it from `spawner`, on the CPU of `placement`. Raises SandboxError."""
        self.placement = placement
        self.ipc: Final = ipc_of(DEFAULT_IPC, can_spin=placement.has_room_to_spin)
        """The transport of its link: what the default means here."""
        self._bpf = device_filter(pipes=TRANSPORTS[self.ipc].uses_pipes)
        link = make_link(self.ipc)
        try:
            process = spawner.spawn(PLAIN, link.device, self._bpf, cpu=placement.cpu)
        except BaseException:
            link.close_vmm_end()
            raise
        self._waiting: tuple[DeviceProcess, Link] | None = process, link

    def take(
        self, name: str, *, ipc: str, bpf: bytes, cpu: int | None, require: int, spin: SpinPermits | None
    ) -> tuple[DeviceProcess, Link] | None:
        """The process, if it is what these arguments would have ordered. `spin` grants its link the
        right to spin.
        """
        wanted = (PLAIN, self.ipc, self._bpf, self.placement.cpu, 0)
        if self._waiting is None or (name, ipc, bpf, cpu, require) != wanted:
            return None
        (process, link), self._waiting = self._waiting, None
        return process, Link(link.kind, link.vmm, link.device, link.page, spin)

    def drop(self) -> None:
        """If it is not taken: it reads the end of file, and exits. Idempotent."""
        if self._waiting is not None:
            self._waiting[1].close_vmm_end()
            self._waiting = None
