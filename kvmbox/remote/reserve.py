"""Device processes that are jailed before anybody knows what they are for.

A device process learns its models from its first request (HELLO). Until then all of them are alike, but for
the name that people see. So those of a plain run can be ordered as soon as there is a spawner: they jail
themselves while the VMM imports its modules and reads its options, or while a warm worker waits for an order.
`DevicePool.launch` takes those that are what it would have ordered. The channels of the others are closed,
and they exit.
"""

from __future__ import annotations

from typing import Final

from kvmbox.host.placement import Placement
from kvmbox.remote.spawner_client import DeviceProcess, SpawnerClient
from kvmbox.remote.spin import SpinGrants
from kvmbox.remote.transport import Link
from kvmbox.remote.transports import DEFAULT_IPC, TRANSPORTS, ipc_of, make_link
from kvmbox.sandbox.seccomp import device_filter

PLAIN: Final = ("uart", "debug")
"""The device processes that start with every plain run."""


class Reserve:
    """Processes on links of the default kind, which nobody has asked anything yet."""

    def __init__(self, spawner: SpawnerClient, placement: Placement) -> None:
        """Order them from `spawner`, on the CPU of `placement`. Raises SandboxError."""
        self.placement = placement
        self.ipc: Final = ipc_of(DEFAULT_IPC, can_spin=placement.has_room_to_spin)
        """The transport of their links: what the default means here."""
        self._bpf = device_filter(pipes=TRANSPORTS[self.ipc].uses_pipes)
        self._waiting: dict[str, tuple[DeviceProcess, Link]] = {}
        try:
            for name in PLAIN:
                link = make_link(self.ipc)
                try:
                    process = spawner.spawn(name, link.device, self._bpf, cpu=placement.cpu)
                except BaseException:
                    link.close_vmm_end()
                    raise
                self._waiting[name] = process, link
        except BaseException:
            self.drop()
            raise

    def take(
        self, name: str, *, ipc: str, bpf: bytes, cpu: int | None, require: int, spin: SpinGrants | None
    ) -> tuple[DeviceProcess, Link] | None:
        """The process of this name, if it is what these arguments would have ordered. `spin` grants its link
        the right to spin.
        """
        its = self.ipc, self._bpf, self.placement.cpu, 0
        if name not in self._waiting or (ipc, bpf, cpu, require) != its:
            return None
        process, link = self._waiting.pop(name)
        return process, Link(link.kind, link.vmm, link.device, link.page, spin)

    def drop(self) -> None:
        """The others are not needed: they read the end of file, and exit. Idempotent."""
        while self._waiting:
            _, (_, link) = self._waiting.popitem()
            link.close_vmm_end()
