"""Where a run starts from: its image, or the saved state of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from kvmbox.base.memory import GuestMemory
from kvmbox.boot.boot_files import HostFiles

if TYPE_CHECKING:
    from kvmbox.boot.plan import BootPlan
    from kvmbox.contract.device_spec import DeviceSpec
    from kvmbox.host.console.serial_ports import Console
    from kvmbox.run.machine.device_set import Devices
    from kvmbox.run.machine.guest_vm import SavedState


class Origin:
    """A run that boots its image. A saved machine is another origin, with the same methods."""

    plan: BootPlan | None = None
    """How the machine was booted, if it is not booted now."""
    state: SavedState | None = None
    """The state that the first virtual machine gets, if it has one."""

    memory_stage: str = ""
    """What the timeline calls the moment at which guest memory is there, if it calls it anything."""
    resumed_stage: str = ""
    """The same of the moment at which the devices have their first state."""

    def files(self) -> HostFiles:
        """What reads the files of the boot."""
        return HostFiles()

    def blamed(self) -> AbstractContextManager[None]:
        """While it lasts, what is wrong with the configuration of the machine is the fault of the origin."""
        return nullcontext()

    def check_board(self, board: Sequence[DeviceSpec]) -> None:
        """Whether this is the board that the origin knows. Raises StartError."""

    def memory(self, size: int) -> GuestMemory:
        """Guest memory of `size` bytes, with what is in it at the start. Raises StartError."""
        return GuestMemory(size)

    def resume(self, devices: Devices, console: Console) -> None:
        """Give the devices the states that they have at the start. Raises StartError, DeviceProcessError."""
