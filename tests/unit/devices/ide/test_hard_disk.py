"""An ATA disk: each command as a driver sees it, its windows, its interrupts, and its errors."""

from __future__ import annotations

import pytest

from kvmbox.contract.bulk_data import Flush, Window
from kvmbox.contract.model import BEYOND_END, DONE, FAILED, MOVED, NO_SPACE
from kvmbox.devices.ide.registers import (
    ABRT,
    BSY,
    CONTROL,
    COUNT,
    DATA,
    DEVICE,
    DRQ,
    ERROR,
    FEATURES,
    HOB,
    IDNF,
    LBA_HIGH,
    LBA_LOW,
    LBA_MID,
    STATUS,
    UNC,
)
from tests.support.ide_host import ALONE, GOES_ON, SECTOR, IdeHost, disk, pattern

SECTORS = 3000
READY = 0x50
FAILURE = 0x41

READ = 0x20
READ_EXT = 0x24
READ_MULTIPLE = 0xC4
READ_MULTIPLE_EXT = 0x29
WRITE = 0x30
WRITE_EXT = 0x34
WRITE_MULTIPLE = 0xC5
WRITE_MULTIPLE_EXT = 0x39
VERIFY = 0x40
VERIFY_EXT = 0x42
SEEK = 0x70
SET_MULTIPLE = 0xC6
SET_TRANSLATION = 0x91
SET_FEATURES = 0xEF
FLUSH = 0xE7
FLUSH_EXT = 0xEA
IDENTIFY = 0xEC
CHECK_POWER_MODE = 0xE5
READ_NATIVE_MAX = 0xF8
READ_NATIVE_MAX_EXT = 0x27


def one_disk(sectors: int = SECTORS, *, writable: bool = True, holds: bool = False) -> IdeHost:
    """A master, selected, with LBA."""
    medium = pattern(min(sectors, SECTORS))
    host = IdeHost(
        master=disk(sectors, b"SERIAL 1", writable=writable), media=(medium, bytearray()), holds=holds
    )
    host.select(0)
    return host


def content(host: IdeHost, lba: int, count: int = 1) -> bytes:
    return bytes(host.media[0][lba * SECTOR : (lba + count) * SECTOR])


def lba_of(host: IdeHost) -> int:
    """The LBA28 that the registers have."""
    low, mid, high = (host.read(register) for register in (LBA_LOW, LBA_MID, LBA_HIGH))
    return (host.read(DEVICE) & 0xF) << 24 | high << 16 | mid << 8 | low


def result(host: IdeHost) -> tuple[int, int]:
    """Status and error; the interrupt that says that the command has ended is taken away."""
    assert host.line == 1
    return host.read(STATUS), host.read(ERROR)


# --- Reading --------------------------------------------------------------------------------------------


def test_each_sector_of_a_read_has_an_interrupt_and_there_is_none_after_the_last() -> None:
    host = one_disk()
    host.task(3, 1000)
    host.command(READ)
    data = b""
    for left in (2, 1, 0):
        assert (host.line, host.read(CONTROL)) == (1, READY | DRQ)
        assert (host.read(COUNT), lba_of(host)) == (left, 1003 - left)
        assert host.read(STATUS) == READY | DRQ
        assert host.line == 0
        data += host.take(SECTOR)
    assert data == content(host, 1000, 3)
    assert (host.read(STATUS), host.line, host.rises) == (READY, 0, 3)


def test_read_is_busy_until_the_vmm_has_the_sector() -> None:
    host = one_disk(holds=True)
    host.task(1, 5)
    assert host.command(READ) == BSY
    assert (host.line, host.read(DATA, 2)) == (0, 0)
    host.answer()
    assert (host.line, host.read(STATUS)) == (1, READY | DRQ)
    assert host.take(SECTOR) == content(host, 5)


@pytest.mark.parametrize(
    ("command", "wide", "block"),
    [
        (READ, False, 1),
        (0x21, False, 1),
        (READ_EXT, True, 1),
        (READ_MULTIPLE, False, 16),
        (READ_MULTIPLE_EXT, True, 16),
    ],
)
def test_a_block_of_a_read_is_one_window(command: int, wide: bool, block: int) -> None:
    host = one_disk()
    if wide:
        host.wide_task(37, 40)
    else:
        host.task(37, 40)
    host.command(command)
    assert host.take(37 * SECTOR) == content(host, 40, 37)
    sizes = [asked.size for asked in host.asked if isinstance(asked, Window)]
    assert sizes == [block * SECTOR] * (37 // block) + [37 % block * SECTOR] * (37 % block > 0)
    assert host.asked[0] == Window(2, 0, 40 * SECTOR, block * SECTOR, GOES_ON)
    assert (host.rises, host.read(CONTROL)) == (1, READY)  # nobody has read the status in between


def test_count_0_is_256_sectors_and_of_a_wide_command_65536() -> None:
    host = one_disk(257)
    host.task(0, 0)
    host.command(READ)
    assert host.take(256 * SECTOR) == content(host, 0, 256)
    assert host.read(CONTROL) == READY
    host.wide_task(0, 0)
    host.command(READ_EXT)
    assert host.take(257 * SECTOR) == content(host, 0, 257)
    assert result(host) == (FAILURE, IDNF)


def test_wide_address_is_read_back_through_hob() -> None:
    host = one_disk(1 << 47, holds=True)
    lba = 0x4567_89AB_CDEF
    host.wide_task(0x0102, lba)
    host.model.write(0, 7, 1, READ_EXT)
    window = host.model.take_effects()[-1]
    assert window == Window(2, 0, lba * SECTOR, SECTOR, GOES_ON)
    host.model.complete(0, 2, DONE)
    host.model.take_effects()
    after = lba + 1
    low = [host.read(register) for register in (COUNT, LBA_LOW, LBA_MID, LBA_HIGH)]
    host.write(CONTROL, HOB)
    high = [host.read(register) for register in (COUNT, LBA_LOW, LBA_MID, LBA_HIGH)]
    assert low == [0x01, *after.to_bytes(6, "little")[:3]]
    assert high == [0x01, *after.to_bytes(6, "little")[3:]]


def test_chs_address_counts_sectors_heads_and_cylinders() -> None:
    host = one_disk()
    host.select(0, 3)  # head 3 of 4
    host.write(COUNT, 10)
    host.command(SET_TRANSLATION)
    host.write(COUNT, 3)
    host.write(LBA_LOW, 9)
    host.write(LBA_MID, 2)
    host.write(LBA_HIGH, 0)
    host.command(READ)
    assert host.take(3 * SECTOR) == content(host, (2 * 4 + 3) * 10 + 8, 3)
    assert (host.read(LBA_LOW), host.read(LBA_MID), host.read(DEVICE) & 0x4F) == (2, 3, 0)


@pytest.mark.parametrize(("head", "sector"), [(0, 0), (0, 64), (0, 255)])
def test_chs_address_that_no_sector_has_is_not_found(head: int, sector: int) -> None:
    host = one_disk()
    host.select(0, head)
    host.write(COUNT, 1)
    host.write(LBA_LOW, sector)
    host.command(READ)
    assert result(host) == (FAILURE, IDNF)
    assert host.asked == []


def test_head_beyond_the_translation_is_not_found() -> None:
    host = one_disk()
    host.select(0, 3)
    host.write(COUNT, 10)
    host.command(SET_TRANSLATION)
    host.select(0, 4)
    host.write(LBA_LOW, 1)
    host.command(READ)
    assert result(host) == (FAILURE, IDNF)


def test_double_words_are_read_and_what_does_not_fit_moves_nothing() -> None:
    host = one_disk()
    host.task(1, 9)
    host.command(READ)
    first = host.read(DATA, 4).to_bytes(4, "little")
    rest = host.take(SECTOR - 6)
    assert host.read(DATA, 4) == 0
    assert first + rest + host.take(2) == content(host, 9)


@pytest.mark.parametrize("command", [READ, READ_EXT, READ_MULTIPLE, WRITE, WRITE_MULTIPLE, VERIFY, SEEK])
def test_first_sector_beyond_the_disk_is_not_found(command: int) -> None:
    host = one_disk()
    host.wide_task(1, SECTORS)
    assert host.command(command) == FAILURE
    assert result(host) == (FAILURE, IDNF)
    assert (lba_of(host), host.asked) == (SECTORS, [])


@pytest.mark.parametrize(("command", "good"), [(READ, 2), (READ_MULTIPLE, 0)])
def test_blocks_before_the_end_of_the_disk_are_read(command: int, good: int) -> None:
    host = one_disk()
    host.task(3, SECTORS - 2)
    host.command(command)
    for _ in range(good):
        assert host.read(STATUS) == READY | DRQ
        host.take(SECTOR)
    assert result(host) == (FAILURE, IDNF)
    assert lba_of(host) == SECTORS - 2 + good


@pytest.mark.parametrize(("status", "error"), [(FAILED, UNC), (BEYOND_END, IDNF)])
def test_sector_that_cannot_be_read_is_told_with_its_address(status: int, error: int) -> None:
    host = one_disk()
    host.task(3, 7)
    host.command(READ)
    host.read(STATUS)
    host.status = status
    host.take(SECTOR)
    assert result(host) == (FAILURE, error)
    assert (host.read(COUNT), lba_of(host)) == (2, 8)
    assert host.read(DATA, 2) == 0


# --- Writing --------------------------------------------------------------------------------------------


def test_write_has_no_interrupt_before_the_first_sector_and_one_after_each() -> None:
    host = one_disk()
    host.task(3, 2000)
    assert host.command(WRITE) == READY | DRQ
    assert host.rises == 0
    for number in (1, 2, 3):
        host.give(bytes([number]) * SECTOR)
        assert host.line == 1
        assert host.read(STATUS) == (READY if number == 3 else READY | DRQ)
        assert host.line == 0
    assert content(host, 2000, 3) == bytes([1]) * SECTOR + bytes([2]) * SECTOR + bytes([3]) * SECTOR
    assert (host.read(COUNT), lba_of(host), host.rises) == (0, 2003, 3)


def test_write_is_busy_until_the_medium_has_the_sector() -> None:
    host = one_disk(holds=True)
    host.task(1, 5)
    host.command(WRITE)
    host.give(bytes(SECTOR))
    assert (host.read(CONTROL), host.line) == (BSY, 0)
    host.answer()
    assert result(host) == (READY, 0)


@pytest.mark.parametrize(
    ("command", "wide", "block"),
    [
        (WRITE, False, 1),
        (0x31, False, 1),
        (WRITE_EXT, True, 1),
        (WRITE_MULTIPLE, False, 8),
        (WRITE_MULTIPLE_EXT, True, 8),
    ],
)
def test_a_block_of_a_write_is_one_window(command: int, wide: bool, block: int) -> None:
    host = one_disk()
    host.write(COUNT, 8)
    host.command(SET_MULTIPLE)
    if wide:
        host.wide_task(19, 40)
    else:
        host.task(19, 40)
    data = bytes(pattern(19)[::-1])
    host.command(command)
    host.give(data)
    assert content(host, 40, 19) == data
    sizes = [asked.size for asked in host.asked if isinstance(asked, Window)]
    assert sizes == [block * SECTOR] * (19 // block) + [19 % block * SECTOR] * (19 % block > 0)
    assert not any(asked.to_guest for asked in host.asked if isinstance(asked, Window))


@pytest.mark.parametrize(("status", "error"), [(NO_SPACE, ABRT), (FAILED, ABRT), (BEYOND_END, IDNF)])
def test_sector_that_cannot_be_written_is_told_with_its_address(status: int, error: int) -> None:
    host = one_disk()
    host.task(3, 7)
    host.command(WRITE)
    host.give(bytes(SECTOR))
    host.read(STATUS)
    host.status = status
    host.give(bytes(SECTOR))
    assert result(host) == (FAILURE, error)
    assert (host.read(COUNT), lba_of(host)) == (2, 8)
    assert content(host, 8) == pattern(SECTORS)[8 * SECTOR : 9 * SECTOR]


@pytest.mark.parametrize("command", [WRITE, WRITE_EXT, WRITE_MULTIPLE, WRITE_MULTIPLE_EXT])
def test_disk_that_must_not_be_written_aborts_writes(command: int) -> None:
    host = one_disk(writable=False)
    host.wide_task(1, 1)
    host.command(command)
    assert result(host) == (FAILURE, ABRT)
    assert host.asked == []
    host.command(READ)
    assert host.take(SECTOR) == content(host, 1)


def test_write_that_reaches_beyond_the_disk_writes_what_is_there() -> None:
    host = one_disk()
    host.task(2, SECTORS - 1)
    host.command(WRITE)
    host.give(b"\xee" * SECTOR)
    assert result(host) == (FAILURE, IDNF)
    assert content(host, SECTORS - 1) == b"\xee" * SECTOR


# --- Flushing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [FLUSH, FLUSH_EXT])
def test_flush_ends_when_the_medium_is_on_stable_storage(command: int) -> None:
    host = one_disk(holds=True)
    assert host.command(command) == BSY
    assert host.asked == [Flush(2, 0)]
    host.answer()
    assert result(host) == (READY, 0)


def test_flush_that_fails_is_aborted() -> None:
    host = one_disk()
    host.status = FAILED
    host.command(FLUSH)
    assert result(host) == (FAILURE, ABRT)


def test_without_write_cache_a_write_ends_with_a_flush() -> None:
    host = one_disk()
    host.write(FEATURES, 0x82)
    host.command(SET_FEATURES)
    host.asked.clear()
    host.task(2, 3)
    host.command(WRITE)
    host.give(bytes(SECTOR))
    assert host.read(STATUS) == READY | DRQ
    host.status = DONE
    host.give(bytes(SECTOR))
    assert [type(asked) for asked in host.asked] == [Window, Window, Flush]
    assert result(host) == (READY, 0)
    host.write(FEATURES, 0x02)
    host.command(SET_FEATURES)
    host.asked.clear()
    host.task(1, 3)
    host.command(WRITE)
    host.give(bytes(SECTOR))
    assert [type(asked) for asked in host.asked] == [Window]


# --- Answers that nobody waits for ----------------------------------------------------------------------


def test_answers_to_other_questions_and_out_of_turn_are_ignored() -> None:
    host = one_disk(holds=True)
    host.task(2, 5)
    host.command(READ)
    before = host.model.snapshot()
    for tag, status in ((0, DONE), (3, DONE), (4, FAILED), (2, MOVED)):
        host.model.complete(0, tag, status)
        assert host.model.snapshot() == before
    host.answer()
    before = host.model.snapshot()
    host.model.complete(0, 2, DONE)
    host.model.memory(0, 2, b"x")
    assert host.model.snapshot() == before


# --- Commands without sectors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "wide"), [(VERIFY, False), (0x41, False), (VERIFY_EXT, True)], ids=("verify", "once", "ext")
)
def test_verify_checks_the_whole_range_and_moves_nothing(command: int, wide: bool) -> None:
    host = one_disk()
    host.wide_task(300 if wide else 0, SECTORS - (300 if wide else 256))
    host.command(command)
    assert result(host) == (READY, 0)
    host.wide_task(301 if wide else 0, SECTORS - (300 if wide else 255))
    host.command(command)
    assert result(host) == (FAILURE, IDNF)
    assert host.asked == []


@pytest.mark.parametrize("command", [0x10, SEEK, 0x94, 0x95, 0x96, 0x97, 0xE0, 0xE1, 0xE2, 0xE3])
def test_command_without_data_ends_with_an_interrupt(command: int) -> None:
    host = one_disk()
    host.command(command)
    assert result(host) == (READY, 0)


@pytest.mark.parametrize(
    "command", [0x00, 0x08, 0x11, 0x25, 0x35, 0xC8, 0xCA, 0xA0, 0xA1, 0xB0, 0xF1, 0xF9, 0xFF, 0x80]
)
def test_other_commands_and_those_with_dma_are_aborted(command: int) -> None:
    host = one_disk()
    host.command(command)
    assert result(host) == (FAILURE, ABRT)
    assert host.asked == []
    host.command(0x10)
    assert result(host) == (READY, 0)


@pytest.mark.parametrize("count", [0, 1, 2, 4, 8, 16])
def test_set_multiple_takes_powers_of_two(count: int) -> None:
    host = one_disk()
    host.write(COUNT, count)
    host.command(SET_MULTIPLE)
    assert result(host) == (READY, 0)
    host.task(5, 0)
    host.command(READ_MULTIPLE)
    if count == 0:
        assert result(host) == (FAILURE, ABRT)
    else:
        assert host.asked == [Window(2, 0, 0, min(count, 5) * SECTOR, ALONE if count >= 5 else GOES_ON)]


@pytest.mark.parametrize("count", [3, 17, 32, 128, 255])
def test_set_multiple_refuses_other_counts_and_keeps_what_was(count: int) -> None:
    host = one_disk()
    host.write(COUNT, count)
    host.command(SET_MULTIPLE)
    assert result(host) == (FAILURE, ABRT)
    host.task(40, 0)
    host.command(READ_MULTIPLE)
    assert host.asked == [Window(2, 0, 0, 16 * SECTOR, GOES_ON)]


def test_translation_without_sectors_is_aborted() -> None:
    host = one_disk()
    host.write(COUNT, 0)
    host.command(SET_TRANSLATION)
    assert result(host) == (FAILURE, ABRT)


@pytest.mark.parametrize("mode", [0x00, 0x01, 0x08, 0x0C])
def test_set_features_takes_pio_modes(mode: int) -> None:
    host = one_disk()
    host.write(FEATURES, 0x03)
    host.write(COUNT, mode)
    host.command(SET_FEATURES)
    assert result(host) == (READY, 0)


@pytest.mark.parametrize(
    ("feature", "count"), [(0x03, 0x20), (0x03, 0x45), (0x03, 0x0D), (0x05, 0), (0x66, 0)]
)
def test_set_features_aborts_dma_modes_and_what_is_not_announced(feature: int, count: int) -> None:
    host = one_disk()
    host.write(FEATURES, feature)
    host.write(COUNT, count)
    host.command(SET_FEATURES)
    assert result(host) == (FAILURE, ABRT)


def test_native_max_is_the_last_sector() -> None:
    host = one_disk()
    host.command(READ_NATIVE_MAX)
    assert (result(host), lba_of(host)) == ((READY, 0), SECTORS - 1)
    host.command(READ_NATIVE_MAX_EXT)
    assert (result(host), host.read(LBA_LOW), host.read(LBA_MID)) == ((READY, 0), 0xB7, 0x0B)
    host.write(CONTROL, HOB)
    assert [host.read(register) for register in (LBA_LOW, LBA_MID, LBA_HIGH)] == [0, 0, 0]


def power_mode(host: IdeHost) -> int:
    host.command(CHECK_POWER_MODE)
    assert result(host) == (READY, 0)
    return host.read(COUNT)


def test_standby_lasts_until_sectors_are_wanted() -> None:
    host = one_disk()
    assert power_mode(host) == 0xFF
    host.command(0xE0)
    assert power_mode(host) == 0x00
    host.task(1, 0)
    host.command(VERIFY)
    assert power_mode(host) == 0xFF


def test_sleeping_disk_obeys_only_a_reset() -> None:
    host = one_disk()
    host.command(0xE6)
    assert result(host) == (READY, 0)
    assert host.command(IDENTIFY) == READY
    assert (host.line, host.read(DATA, 2)) == (0, 0)
    host.write(CONTROL, 4)
    host.write(CONTROL, 0)
    assert power_mode(host) == 0xFF


# --- IDENTIFY DEVICE ------------------------------------------------------------------------------------


def identify(host: IdeHost) -> list[int]:
    host.command(IDENTIFY)
    assert result(host) == (READY | DRQ, 0)
    data = host.take(512)
    assert (host.read(CONTROL), host.line, host.asked) == (READY, 0, [])
    return [int.from_bytes(data[place : place + 2], "little") for place in range(0, 512, 2)]


def text(words: list[int]) -> bytes:
    return b"".join(word.to_bytes(2, "big") for word in words)


def test_identify_tells_names_sizes_and_no_dma() -> None:
    words = identify(one_disk())
    assert words[0] == 0x0040
    assert text(words[10:20]) == b"SERIAL 1".ljust(20)
    assert text(words[27:47]) == b"KVMBOX HARDDISK".ljust(40)
    assert (words[1], words[3], words[6]) == (2, 16, 63)
    assert words[54:59] == [2, 16, 63, 2016, 0]
    assert (words[47], words[59]) == (0x8010, 0x0110)
    assert words[49] & 0x0300 == 0x0200  # LBA, no DMA
    assert (words[63], words[88], words[53] & 4) == (0, 0, 0)
    assert words[60:62] == [SECTORS, 0]
    assert words[100:104] == [SECTORS, 0, 0, 0]
    assert words[83] & 0x7400 == 0x7400  # LBA48, FLUSH CACHE, FLUSH CACHE EXT


def test_identify_tells_what_has_been_set() -> None:
    host = one_disk()
    host.write(COUNT, 4)
    host.command(SET_MULTIPLE)
    host.select(0, 7)
    host.write(COUNT, 20)
    host.command(SET_TRANSLATION)
    host.write(FEATURES, 0x82)
    host.command(SET_FEATURES)
    host.read(STATUS)
    host.asked.clear()
    words = identify(host)
    assert (words[59], words[54:59]) == (0x0104, [18, 8, 20, 2880, 0])
    assert (words[82] & 0x20, words[85] & 0x20) == (0x20, 0)
    assert (words[1], words[3], words[6]) == (2, 16, 63)


@pytest.mark.parametrize(
    ("sectors", "cylinders", "small", "large"),
    [
        (1, 2, 1, 1),
        (16383 * 1008, 16383, 16383 * 1008, 16383 * 1008),
        (1 << 28, 16383, (1 << 28) - 1, 1 << 28),
        (20 * 10**9, 16383, (1 << 28) - 1, 20 * 10**9),
    ],
)
def test_identify_of_a_small_or_large_disk(sectors: int, cylinders: int, small: int, large: int) -> None:
    words = identify(one_disk(sectors))
    assert words[1] == cylinders
    assert words[60] | words[61] << 16 == small
    assert sum(words[100 + index] << 16 * index for index in range(4)) == large
