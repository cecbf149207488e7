"""An IDE channel with its grants: whatever the guest does, its own device process keeps the protocol."""

from __future__ import annotations

import pytest

from kvmbox.contract.device_spec import Medium
from kvmbox.devices.ide import registers as reg
from kvmbox.devices.ide.board import IdeDrive, ide_board
from kvmbox.devices.ide.cd_drive import DEVICE_RESET, PACKET
from kvmbox.host.disk.transfers import BytesStore
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.channel.grants import bind
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.published.data_window import DataWindow
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.remote.transport.direct import DirectLink
from tests.support.halves import Half
from tests.support.noting_host import NotingHost

READ_SECTORS = 0x20
READ_10 = (0x28, 0, 0, 0, 1, 0)  # sector 0, one sector, as words of the data register


class Host(NotingHost):
    """Its disks have all that is asked for at once, or nothing yet (`waits`)."""

    def __init__(self, *, waits: bool) -> None:
        super().__init__()
        self._waits = waits

    def medium(self, device: str, grant: Medium) -> MediumAccess:
        del device
        store = BytesStore(bytes(grant.size))
        if self._waits:
            store.read_now = lambda _offset, _size: None  # type: ignore[assignment,method-assign,return-value]
        return MediumAccess(grant, store, lambda *_errand: True)

    def window(self, register: int) -> DataWindow:
        return DataWindow(register)


def reading(drive: IdeDrive, *, waits: bool) -> DeviceProxy:
    """A channel whose master has begun to read a sector."""
    spec, _ = ide_board([drive, None, None, None])
    channel = Half().channel("ide", DirectLink(), [bind(spec, Host(waits=waits))], now=lambda: 1)
    greet(channel, [spec])
    proxy = DeviceProxy.of(channel, 0, spec)
    proxy.write(reg.DEVICE, 1, reg.LBA)
    proxy.write(reg.COUNT, 1, 1)
    proxy.write(reg.LBA_HIGH, 1, 8 * drive.is_cd)
    proxy.write(reg.COMMAND, 1, PACKET if drive.is_cd else READ_SECTORS)
    for word in READ_10 if drive.is_cd else ():
        proxy.write(reg.DATA, 2, word)
    return proxy


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("drive", [IdeDrive("cd", 4, is_cd=True), IdeDrive("disk", 4)])
def test_software_reset_ends_a_read_of_a_medium_that_cannot_be_written(drive: IdeDrive, waits: bool) -> None:
    proxy = reading(drive, waits=waits)
    assert proxy.read(reg.CONTROL, 1) == (reg.BSY if waits else reg.READY | reg.DRQ)
    proxy.write(reg.CONTROL, 1, reg.SRST)
    proxy.write(reg.CONTROL, 1, 0)
    assert not proxy.read(reg.STATUS, 1) & (reg.BSY | reg.DRQ)


def test_device_reset_ends_a_read_of_a_cd() -> None:
    proxy = reading(IdeDrive("cd", 4, is_cd=True), waits=True)
    proxy.write(reg.COMMAND, 1, DEVICE_RESET)
    assert proxy.read(reg.STATUS, 1) == 0
