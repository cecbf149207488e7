"""A disk with faults: which of its reads and writes fail, come late, or are torn."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

import pytest

from kvmbox.host.disk.transfers import BytesStore
from kvmbox.parts.inject.device_faults import Count, DeviceFaults
from kvmbox.parts.inject.disk_faults import FaultyDisk
from kvmbox.parts.inject.spec import parse

SECTOR = 512
OLD = b"o" * (4 * SECTOR)


class Rig:
    """A disk of four sectors, with faults."""

    def __init__(self, text: str) -> None:
        self.store = BytesStore(OLD)
        self.faults = DeviceFaults("disk0", lambda: 0)
        spec = parse(f"disk0:{text}")
        for wanted in spec.wanted:
            assert self.faults.add(spec, wanted)
        self.disk = FaultyDisk(self.store, self.faults)

    def reads(self, times: int) -> list[bool]:
        """Whether each of so many reads went well."""
        return [self._went(lambda: self.disk.read(0, SECTOR)) for _ in range(times)]

    def writes(self, data: bytes, *, offset: int = 0) -> bool:
        return self._went(lambda: self.disk.write(offset, data))

    @staticmethod
    def _went(act: Callable[[], object]) -> bool:
        try:
            act()
        except OSError:
            return False
        return True


def test_fault_is_an_error_of_input_or_output() -> None:
    with pytest.raises(OSError, match="--inject") as raised:
        Rig("eio=1").disk.read(0, SECTOR)
    assert raised.value.errno == errno.EIO


def test_every_nth_read_or_write_fails_and_stores_nothing() -> None:
    rig = Rig("eio=3")
    assert rig.reads(2) == [True, True]
    assert not rig.writes(b"n" * SECTOR)
    assert rig.store.data == OLD
    assert rig.reads(3) == [True, True, False]
    assert rig.faults.counts == [Count("disk0", "eio", 6, 2)]


def test_faults_begin_after_so_many_reads_and_writes() -> None:
    rig = Rig("eio=1,after=2")
    assert rig.reads(4) == [True, True, False, False]
    assert rig.faults.counts == [Count("disk0", "eio", 2, 2)]


@pytest.mark.parametrize("sectors", [1, 2, 3])
@pytest.mark.parametrize("offset", [0, SECTOR])
def test_torn_write_stores_its_first_half_and_fails(sectors: int, offset: int) -> None:
    rig = Rig("torn-write=2")
    size = sectors * SECTOR
    assert rig.writes(b"n" * size, offset=offset)
    assert not rig.writes(b"t" * size, offset=offset)
    wanted = OLD[:offset] + b"t" * (size // 2) + b"n" * (size // 2)
    assert rig.store.data == wanted + OLD[len(wanted) :]
    assert rig.faults.counts == [Count("disk0", "torn-write", 2, 1)]


def test_slow_disk_takes_the_time_of_the_thread_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    rig = Rig("slow=20")
    assert rig.reads(1) == [True]
    assert rig.writes(b"n" * SECTOR)
    rig.disk.flush()
    assert waited == [0.02, 0.02]
    assert rig.faults.counts == [Count("disk0", "slow", 2, 2)]


def test_nothing_is_done_at_once_so_that_no_vcpu_waits() -> None:
    rig = Rig("eio=1")
    assert rig.disk.read_now(0, SECTOR) is None
    assert not rig.disk.writes_now
    assert rig.faults.counts == [Count("disk0", "eio", 0, 0)]
