"""IDE channels on the board, with their drives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvmbox.base import layout
from kvmbox.base.value_classes import Value
from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Irq, Medium


class IdeDrive(Value):
    """A drive of an IDE channel. `name` is that of the medium.

    Its `sectors` have 512 bytes, or 2048 on a CD. `serial` has 20 ASCII characters at most.
    """

    name: str
    sectors: int
    is_cd: bool = False
    writable: bool = False
    serial: str = ""

    @property
    def parameter(self) -> bytes:
        """The drive as its model gets it."""
        from kvmbox.devices.ide.model import CD, DISK, PARAMETERS, READ_ONLY

        kind = CD if self.is_cd else DISK if self.writable else DISK | READ_ONLY
        return PARAMETERS.pack(kind, self.sectors, self.serial.encode("ascii").ljust(20))

    @property
    def grant(self) -> Medium:
        """What the model may do with it."""
        return Medium(self.name, self.sectors * (2048 if self.is_cd else 512), self.writable, window=0)


_NO_DRIVE: Final = Medium("", 0, window=0)


def ide_board(drives: Sequence[IdeDrive | None]) -> list[DeviceSpec]:
    """The IDE channels with these drives: the master and the slave of the first one, and of the second one.

    Without any drive there is none. With one there are both, as in every chip set: a guest may wait for the
    end of BSY, which ports without a channel show for ever.
    """
    if not any(drives):
        return []
    channels = []
    for number, (first, control, irq) in enumerate(layout.IDE_CHANNELS):
        pair = drives[2 * number : 2 * number + 2]
        channels.append(
            DeviceSpec(
                f"ide{number}",
                "ide",
                "ide",
                ports=(
                    AddressRange(first, layout.IDE_PORT_COUNT),
                    AddressRange(control, 1, offset=layout.IDE_PORT_COUNT),
                ),
                parameters={
                    name: drive.parameter
                    for name, drive in zip(("master", "slave"), pair, strict=True)
                    if drive is not None
                },
                grants=(Irq(irq), *(_NO_DRIVE if drive is None else drive.grant for drive in pair)),
                natural_sizes=frozenset({2, 4}),
                # The task file, up to the command, which exits.
                coalesced=tuple(range(first + 1, first + 7)),
                on_demand=True,
            )
        )
    return channels
