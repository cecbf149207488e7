"""A medium for a device: the bytes of a disk, which the VMM reads and writes on the device's behalf.

What the store can do at once is done under the lock of the channel. What may have to wait for the host is an
errand of the transfer thread, and the device is told later.

Who is at fault. The guest chooses sectors, so a place beyond the end is an error of the guest's: a status.
The model decides how much to ask for at a time, so more than the grant permits breaks the protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, cast

from kvmbox.contract.device_spec import Medium
from kvmbox.contract.model import BUSY, DONE
from kvmbox.host.disk.transfers import Settle, Store, status_of
from kvmbox.remote.channel.effect_calls import FollowUp
from kvmbox.wire import protocol

MOST_ERRANDS: Final = 80
"""How many errands of one device may wait: one for each chain that it may have of a queue, and some."""


class MediumStore(Protocol):
    """What is behind a medium: see `host.disk.stores`. Used by several threads."""

    @property
    def writes_now(self) -> bool:
        """Whether `write` and `flush` never wait for the host."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`. May wait. Raises OSError."""
        ...

    def read_now(self, offset: int, size: int) -> bytes | None:
        """The same without waiting; None if that cannot be. Raises OSError."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes from `offset`. Raises OSError."""
        ...

    def flush(self) -> None:
        """Bring what was written to stable storage. Raises OSError."""
        ...


def medium_store(store: Store) -> MediumStore:
    """A store that a device was granted as a medium. ValueError if it cannot be one."""
    if not hasattr(store, "read_now"):
        raise ValueError(f"{type(store).__name__} is no store for a medium: it has no read_now")
    return cast(MediumStore, store)


Submit = Callable[[int, Callable[[], int], Settle | None], bool]
"""Takes an errand: its tag, what does it and returns the status, and what is asked under the lock of the
channel whether the device is told. False if too many of the device are pending.
"""


class MediumAccess:
    """A `Medium` grant, the store behind it, and what takes errands for it."""

    def __init__(self, grant: Medium, store: MediumStore, submit: Submit) -> None:
        self.grant = grant
        self.store = store
        self.submit = submit
        self._file_now: Callable[[int, int], int] | None = getattr(store, "file_now", None)
        self.reads = 0
        """How many windows of bytes were read for the guest."""
        self.writes = 0
        """How many the guest has written."""

    @property
    def is_of_packets(self) -> bool:
        """Whether the store keeps apart what is written at once, and wants to know of buffers."""
        return hasattr(self.store, "has_buffers")

    def allows(self, size: int, *, to_guest: bool) -> bool:
        """Whether the grant has room for such a window."""
        return size <= self.grant.max_bytes and (to_guest or self.grant.writable)

    def has(self, offset: int, size: int) -> bool:
        """Whether the medium has these bytes."""
        return offset + size <= self.grant.size

    def read_now(self, offset: int, size: int) -> bytes | int | None:
        """Bytes for the guest, or the status of an error, or None: that would have to wait."""
        self.reads += 1
        try:
            return self.store.read_now(offset, size)
        except OSError as error:
            return status_of(error)

    def file_now(self, offset: int, size: int) -> int:
        """The descriptor of a file that has these bytes at the same offset, or -1. Who reads them there
        without waiting tells so by `was_read`.
        """
        return -1 if self._file_now is None or not self.has(offset, size) else self._file_now(offset, size)

    def was_read(self, size: int) -> None:
        """So many bytes of that file were read for the guest."""
        self.reads += 1
        self.store.was_read(size)  # type: ignore[attr-defined]  # a store with `file_now` has it

    def write(self, tag: int, offset: int, data: bytes) -> int | None:
        """Store what the guest has written: the status, or None if the device is told later."""
        self.writes += 1
        return self._does(tag, lambda: self.store.write(offset, data))

    def flush(self, device: int, tag: int) -> list[FollowUp]:
        """What a `Flush` asks for."""
        status = self._does(tag, self.store.flush)
        return [] if status is None else [complete(device, (tag, status))]

    def _does(self, tag: int, act: Callable[[], None]) -> int | None:
        def work() -> int:
            try:
                act()
            except OSError as error:
                return status_of(error)
            return DONE

        if self.store.writes_now:
            return work()
        return None if self.submit(tag, work, None) else BUSY


def complete(device: int, *told: tuple[int, int]) -> FollowUp:
    """A COMPLETE request that tells of one or several tags, each with its status."""
    first, *others = (tag | status << 32 for tag, status in told)
    return FollowUp(
        protocol.COMPLETE, device, first, payload=b"".join(word.to_bytes(8, "little") for word in others)
    )
