"""The boot disk: registers, commands, answers, snapshots, and a guest that writes nonsense."""

from __future__ import annotations

import struct
from typing import Final

import pytest

from kvmbox.contract.model import BAD_ADDRESS, BEYOND_END, DONE, FAILED, SnapshotError, Transfer
from kvmbox.devices.bios.boot_disk import (
    ADDRESS,
    BUSY,
    COMMAND,
    COUNT,
    DRIVE,
    IDLE,
    LBA,
    LBA_HIGH,
    MAX_SECTORS,
    PROTECTED,
    READ,
    RESULT,
    SECTORS,
    SECTORS_HIGH,
    STATUS,
    WRITE,
    BootDisk,
    pack_drives,
)

LARGE: Final = (5 << 41) // 512 + 3
"""Sectors of a disk of 10 TiB and some bytes."""


def disk(*sectors: int, writable: bool = False) -> BootDisk:
    return BootDisk(drives=pack_drives((each, writable) for each in sectors or (100,)))


def ask(
    model: BootDisk, lba: int, count: int, address: int = 0x8000, *, drive: int = 0, command: int = READ
) -> list[object]:
    """Give the command; what the model asks of the VMM."""
    registers = {LBA: lba & 0xFFFF_FFFF, LBA_HIGH: lba >> 32, COUNT: count, ADDRESS: address, DRIVE: drive}
    for register, value in (*registers.items(), (COMMAND, command)):
        model.write(0, register, 4, value)
    return list(model.take_effects())


def test_disk_tells_its_size_and_is_idle_at_first() -> None:
    model = disk(7)

    assert model.read(0, SECTORS, 4) == 7
    assert model.read(0, STATUS, 4) == IDLE
    assert model.read(0, COMMAND, 4) == 0


def test_each_drive_tells_its_own_size_and_one_that_is_not_there_has_none() -> None:
    model = disk(7, LARGE)

    sizes = []
    for drive in (0, 1, 2, 0xFFFF_FFFF):
        model.write(0, DRIVE, 4, drive)
        sizes.append(model.read(0, SECTORS, 4) | model.read(0, SECTORS_HIGH, 4) << 32)
    assert sizes == [7, LARGE, 0, 0]


def test_last_sector_of_a_disk_beyond_2_tib_is_read_and_none_behind() -> None:
    model = disk(7, LARGE)

    assert ask(model, LARGE - 1, 1, drive=1) == [Transfer(1, 1, (LARGE - 1) * 512, [(0x8000, 512)], 1)]
    model.complete(0, 1, DONE)
    assert ask(model, LARGE - 1, 2, drive=1) == []
    assert model.read(0, STATUS, 4) == RESULT + BEYOND_END


@pytest.mark.parametrize("command", [READ, WRITE])
def test_drive_that_does_not_exist_has_no_sector(command: int) -> None:
    model = disk(7, writable=True)

    assert ask(model, 0, 1, drive=1, command=command) == []
    assert model.read(0, STATUS, 4) == RESULT + BEYOND_END


def test_write_is_a_transfer_from_the_guest() -> None:
    model = disk(7, 100, writable=True)

    assert ask(model, 3, 2, drive=1, command=WRITE) == [Transfer(1, 1, 3 * 512, [(0x8000, 1024)], 0)]
    assert model.read(0, STATUS, 4) == BUSY


def test_write_to_a_protected_drive_asks_for_nothing() -> None:
    model = disk(7)

    assert ask(model, 0, 1, command=WRITE) == []
    assert model.read(0, STATUS, 4) == PROTECTED
    assert len(ask(model, 0, 1)) == 1


def test_read_is_one_transfer_and_busy_until_it_is_complete() -> None:
    model = disk()

    assert ask(model, 3, 2) == [Transfer(1, 0, 3 * 512, [(0x8000, 1024)], 1)]
    assert model.read(0, STATUS, 4) == BUSY
    model.complete(0, 1, DONE)
    assert model.read(0, STATUS, 4) == RESULT + DONE


@pytest.mark.parametrize("status", [BAD_ADDRESS, BEYOND_END, FAILED])
def test_failed_transfer_is_told(status: int) -> None:
    model = disk()
    ask(model, 0, 1)

    model.complete(0, 1, status)

    assert model.read(0, STATUS, 4) == RESULT + status


@pytest.mark.parametrize(
    ("lba", "count"),
    [(100, 1), (99, 2), (0, 101), (0xFFFF_FFFF, 0xFFFF_FFFF), (0xFFFF_FFFF, 1)],
)
def test_what_reaches_beyond_the_disk_asks_for_nothing(lba: int, count: int) -> None:
    model = disk()

    assert ask(model, lba, count) == []
    assert model.read(0, STATUS, 4) == RESULT + BEYOND_END


def test_no_more_than_one_grant_allows_is_asked_for() -> None:
    model = disk(MAX_SECTORS + 1)

    assert len(ask(model, 0, MAX_SECTORS)) == 1
    model.complete(0, 1, DONE)
    assert ask(model, 0, MAX_SECTORS + 1) == []


def test_no_sectors_are_done_at_once() -> None:
    model = disk()

    assert ask(model, 5, 0) == []
    assert model.read(0, STATUS, 4) == RESULT + DONE


def test_command_while_busy_and_unknown_commands_are_ignored() -> None:
    model = disk()
    ask(model, 0, 1)

    assert ask(model, 1, 1) == []
    model.complete(0, 1, DONE)
    model.write(0, COMMAND, 4, 3)
    assert model.take_effects() == []
    assert model.read(0, STATUS, 4) == RESULT + DONE


def test_answer_from_before_a_reset_is_nobodys() -> None:
    model = disk()
    ask(model, 0, 1)
    model.reset(0)

    model.complete(0, 1, DONE)
    assert model.read(0, STATUS, 4) == IDLE
    assert ask(model, 0, 1) == [Transfer(2, 0, 0, [(0x8000, 512)], 1)]
    model.complete(0, 1, FAILED)
    assert model.read(0, STATUS, 4) == BUSY


@pytest.mark.parametrize("size", [1, 2, 8, 3])
def test_only_whole_registers_are_reached(size: int) -> None:
    model = disk()
    before = model.snapshot()

    for offset in range(-1, DRIVE + 8):
        model.write(0, offset, size, (1 << 64) - 1)
        assert model.read(0, offset, size) == ((1 << 8 * size) - 1 if size != 3 else 0)
    assert model.snapshot() == before
    assert model.take_effects() == []


def test_snapshot_is_restored_in_the_middle_of_a_transfer() -> None:
    model = disk(7, LARGE)
    ask(model, (1 << 32) + 3, 2, 0x1234, drive=1)
    copy = disk(7, LARGE)

    copy.restore(model.snapshot())
    copy.complete(0, 1, DONE)

    registers = (LBA, LBA_HIGH, COUNT, ADDRESS, DRIVE)
    assert [copy.read(0, register, 4) for register in registers] == [3, 1, 2, 0x1234, 1]
    assert copy.read(0, STATUS, 4) == RESULT + DONE


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"BDK\x02",
        b"BDK\x01" + bytes(28),
        b"BDK\x02" + bytes(29),
        struct.pack("<4s7I", b"BDK\x02", 0, 0, 0, 0, 0, 8, 0),
        struct.pack("<4s7I", b"BDK\x02", 0, 0, 0, 0, 0, PROTECTED + 1, 0),
    ],
)
def test_malformed_snapshot_is_refused_without_effect(state: bytes) -> None:
    model = disk()
    ask(model, 3, 2)
    before = model.snapshot()

    with pytest.raises(SnapshotError):
        model.restore(state)
    assert model.snapshot() == before
