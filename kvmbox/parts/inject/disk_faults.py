"""Faults of a disk: reads and writes that fail, come late, or are torn.

They are at the store, where the VMM moves the bytes. So a disk has them wherever the guest finds it: at IDE,
at virtio, or through the BIOS. The device is told what it would be told of a disk of the host that fails.

Nothing is done at once: each read and each write is an errand of the transfer thread, and one event. That
thread waits, and no vCPU does.
"""

from __future__ import annotations

import errno
import time
from typing import Any, Final

from kvmbox.host.disk.transfers import Store
from kvmbox.parts.inject.device_faults import DeviceFaults
from kvmbox.parts.inject.fault_table import EIO, SLOW, TORN_WRITE
from kvmbox.remote.published.medium import medium_store

SECTOR: Final = 512


class FaultyDisk:
    """`store` with the `faults` of a disk: a `remote.published.medium.MediumStore`. Its user is the transfer
    thread.
    """

    writes_now = False

    def __init__(self, store: Store, faults: DeviceFaults) -> None:
        self._store = store
        self._faults = faults

    def read(self, offset: int, size: int) -> bytes:
        """See MediumStore."""
        self._begin()
        return self._store.read(offset, size)

    def read_now(self, _offset: int, _size: int) -> bytes | None:
        """See MediumStore. It would always have to wait."""
        return None

    def file_now(self, _offset: int, _size: int) -> int:
        """See MediumAccess. No file has what this disk has."""
        return -1

    def write(self, offset: int, data: bytes) -> None:
        """See MediumStore."""
        self._begin()
        if self._faults.happens(TORN_WRITE):
            self._tear(offset, data)
            raise OSError(errno.EIO, "--inject: the write is torn")
        self._store.write(offset, data)

    def flush(self) -> None:
        """See MediumStore."""
        medium_store(self._store).flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _begin(self) -> None:
        faults = self._faults
        faults.access()
        slow = faults.wanted(SLOW)
        if slow is not None and faults.happens(SLOW):
            assert slow.delay is not None
            time.sleep(slow.delay / 1e9)
        if faults.happens(EIO):
            raise OSError(errno.EIO, "--inject: the disk has an error")

    def _tear(self, offset: int, data: bytes) -> None:
        """Store the first half. A disk is written in whole sectors: the rest of the last one stays."""
        half = len(data) // 2
        rest = self._store.read(offset + half, -half % SECTOR)
        self._store.write(offset, data[:half] + rest)
