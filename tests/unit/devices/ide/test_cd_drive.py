"""A CD-ROM drive: ATA commands of a packet device, the packet protocol, and each packet command."""

from __future__ import annotations

import pytest

from kvmbox.contract.bulk_data import Window
from kvmbox.contract.model import BEYOND_END, FAILED
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
    LBA_HIGH,
    LBA_LOW,
    LBA_MID,
    STATUS,
)
from tests.support.ide_host import CD_SECTOR, IdeHost, cd, pattern

SECTORS = 200
READY = 0x50
FAILURE = 0x41

PACKET = 0xA0
IDENTIFY_PACKET_DEVICE = 0xA1

TEST_UNIT_READY = 0x00
REQUEST_SENSE = 0x03
INQUIRY = 0x12
MODE_SENSE_6 = 0x1A
START_STOP = 0x1B
PREVENT_REMOVAL = 0x1E
READ_CAPACITY = 0x25
READ_10 = 0x28
SEEK_10 = 0x2B
READ_SUB_CHANNEL = 0x42
READ_TOC = 0x43
GET_CONFIGURATION = 0x46
GET_EVENTS = 0x4A
READ_DISC_INFORMATION = 0x51
MODE_SENSE_10 = 0x5A
READ_12 = 0xA8
SET_SPEED = 0xBB
MECHANISM_STATUS = 0xBD
READ_CD = 0xBE

EJECT = (START_STOP, 0, 0, 0, 2)
LOAD = (START_STOP, 0, 0, 0, 3)

MEDIUM_NOT_PRESENT = (2, 0x3A)
REMOVAL_PREVENTED = (2, 0x53)
UNRECOVERED_READ_ERROR = (3, 0x11)
INVALID_COMMAND = (5, 0x20)
OUT_OF_RANGE = (5, 0x21)
INVALID_FIELD = (5, 0x24)
SAVING_NOT_SUPPORTED = (5, 0x39)


def one_cd(sectors: int = SECTORS, *, holds: bool = False) -> IdeHost:
    """A drive as the slave, selected."""
    medium = pattern(min(sectors, SECTORS), CD_SECTOR)
    host = IdeHost(slave=cd(sectors, b"SERIAL 2"), media=(bytearray(), medium), holds=holds)
    host.select(1, 0)
    return host


def content(host: IdeHost, lba: int, count: int) -> bytes:
    return bytes(host.media[1][lba * CD_SECTOR : (lba + count) * CD_SECTOR])


def has_succeeded(host: IdeHost) -> bool:
    """Whether the last packet command has ended well, and has said so."""
    assert host.line == 1
    assert host.read(COUNT) & 3 == 3
    return (host.read(STATUS), host.read(ERROR)) == (READY, 0)


def sense(host: IdeHost) -> tuple[int, int]:
    """Key and code, after a command that has failed with this key."""
    assert host.line == 1
    assert host.read(COUNT) & 3 == 3
    status, error = host.read(STATUS), host.read(ERROR)
    data = host.packet(REQUEST_SENSE, 0, 0, 0, 18)
    assert (data[0], data[7], len(data)) == (0x70, 10, 18)
    assert (status, error) == (FAILURE, data[2] << 4)
    return data[2], data[12]


def begin(host: IdeHost, *command: int, limit: int) -> None:
    """Give a packet command, and read nothing."""
    host.write(FEATURES, 0)
    host.write(LBA_MID, limit & 0xFF)
    host.write(LBA_HIGH, limit >> 8)
    host.command(PACKET)
    host.give(bytes(command).ljust(12, b"\0"))


def block_size(host: IdeHost) -> int:
    return host.read(LBA_MID) | host.read(LBA_HIGH) << 8


# --- ATA commands ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [0x20, 0x21, 0xEC])
def test_commands_of_a_disk_are_aborted_with_the_signature(command: int) -> None:
    host = one_cd()
    for register in (COUNT, LBA_LOW, LBA_MID, LBA_HIGH):
        host.write(register, 0x77)
    host.command(command)
    assert (host.line, host.read(STATUS), host.read(ERROR)) == (1, FAILURE, ABRT)
    assert [host.read(register) for register in (COUNT, LBA_LOW, LBA_MID, LBA_HIGH)] == [1, 1, 0x14, 0xEB]


@pytest.mark.parametrize("command", [0x00, 0x10, 0x24, 0x30, 0x40, 0x91, 0xC4, 0xC8, 0xE2, 0xEA, 0xF8])
def test_other_commands_are_aborted(command: int) -> None:
    host = one_cd()
    host.command(command)
    assert (host.line, host.read(STATUS), host.read(ERROR)) == (1, FAILURE, ABRT)


@pytest.mark.parametrize("command", [0xE0, 0xE1, 0xE5, 0xE7, 0x94, 0x98])
def test_power_management_and_flush_cache_are_there(command: int) -> None:
    host = one_cd()
    host.command(command)
    assert (host.line, host.read(STATUS), host.read(ERROR)) == (1, READY, 0)


def test_device_reset_gives_the_signature_without_an_interrupt() -> None:
    host = one_cd()
    host.write(LBA_MID, 0x77)
    assert host.command(0x08) == 0x00
    assert [host.read(register) for register in (ERROR, COUNT, LBA_MID, LBA_HIGH)] == [1, 1, 0x14, 0xEB]
    assert (host.read(DEVICE), host.rises) == (0xB0, 0)


@pytest.mark.parametrize("holds", [True, False])
def test_device_reset_ends_a_command_and_its_window(holds: bool) -> None:
    host = one_cd(holds=holds)
    begin(host, READ_10, 0, 0, 0, 0, 1, 0, 0, 1, limit=CD_SECTOR)
    assert host.read(CONTROL) & (BSY | DRQ)
    assert host.command(0x08) == 0x00
    assert host.asked[-1] == Window(5, 1, 0, 0, 1)
    assert (host.line, host.read(DATA, 2)) == (0, 0)
    assert host.packet(READ_10, 0, 0, 0, 0, 2, 0, 0, 0) == b""
    assert has_succeeded(host)


def test_sleeping_drive_wakes_by_device_reset() -> None:
    host = one_cd()
    host.command(0xE6)
    host.read(STATUS)
    assert host.command(IDENTIFY_PACKET_DEVICE) == READY
    host.command(0x08)
    assert host.command(IDENTIFY_PACKET_DEVICE) == READY | DRQ


def test_identify_packet_device_is_512_bytes_and_one_interrupt() -> None:
    host = one_cd()
    host.write(COUNT, 0xFF)
    host.command(IDENTIFY_PACKET_DEVICE)
    assert (host.line, host.read(STATUS)) == (1, READY | DRQ)
    data = host.take(512)
    assert (host.read(CONTROL), host.line) == (READY, 0)
    words = [int.from_bytes(data[place : place + 2], "little") for place in range(0, 512, 2)]
    assert words[0] == 0x85C0
    assert b"".join(word.to_bytes(2, "big") for word in words[10:20]) == b"SERIAL 2".ljust(20)
    assert b"".join(word.to_bytes(2, "big") for word in words[27:47]) == b"KVMBOX CD-ROM".ljust(40)
    assert (words[49] & 0x0300, words[63], words[88]) == (0x0200, 0, 0)  # LBA, no DMA


# --- The packet protocol --------------------------------------------------------------------------------


def test_packet_is_asked_for_without_an_interrupt() -> None:
    host = one_cd()
    assert host.command(PACKET) == READY | DRQ
    assert (host.read(COUNT) & 3, host.line) == (1, 0)
    host.give(bytes(10))
    host.write(DATA, 0, size=4)  # does not fit
    assert host.read(CONTROL) == READY | DRQ
    host.give(bytes(2))
    assert (host.read(CONTROL), host.read(COUNT) & 3, host.line) == (READY, 3, 1)


@pytest.mark.parametrize("features", [1, 2, 3])
def test_packet_with_dma_or_overlap_is_aborted(features: int) -> None:
    host = one_cd()
    host.write(FEATURES, features)
    host.command(PACKET)
    assert (host.line, host.read(STATUS), host.read(ERROR)) == (1, FAILURE, ABRT)


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [
        (0xFFFF, [6144]),
        (6144, [6144]),
        (4096, [4096, 2048]),
        (2047, [2046, 2046, 2046, 6]),
        (1000, [1000] * 6 + [144]),
        (5000, [5000, 1144]),
    ],
)
def test_read_goes_in_blocks_of_the_limit_each_with_an_interrupt(limit: int, sizes: list[int]) -> None:
    host = one_cd()
    begin(host, READ_10, 0, 0, 0, 0, 9, 0, 0, 3, limit=limit)
    data, found = b"", []
    while host.read(CONTROL) & DRQ:
        assert (host.line, host.read(COUNT) & 3) == (1, 2)
        assert host.read(STATUS) == READY | DRQ
        assert host.line == 0
        found.append(block_size(host))
        data += host.take(found[-1])
    assert (data, found) == (content(host, 9, 3), sizes)
    assert has_succeeded(host)
    assert [asked.size for asked in host.asked if isinstance(asked, Window)] == sizes
    assert host.rises == len(sizes) + 1


def test_more_than_64_kib_go_in_even_blocks() -> None:
    host = one_cd()
    begin(host, READ_12, 0, 0, 0, 0, 0, 0, 0, 0, 33, limit=0xFFFF)
    assert block_size(host) == 0xFFFE
    data = host.take(0xFFFE)
    assert block_size(host) == 33 * CD_SECTOR - 0xFFFE
    assert data + host.take(block_size(host)) == content(host, 0, 33)
    assert has_succeeded(host)


def test_drive_is_busy_until_the_vmm_has_the_block() -> None:
    host = one_cd(holds=True)
    begin(host, READ_10, 0, 0, 0, 0, 9, 0, 0, 1, limit=CD_SECTOR)
    assert (host.read(CONTROL), host.line) == (BSY, 0)
    host.answer()
    assert (host.read(CONTROL), host.line) == (READY | DRQ, 1)


def test_answer_of_the_drive_goes_in_blocks_of_the_limit() -> None:
    host = one_cd()
    begin(host, INQUIRY, 0, 0, 0, 36, limit=14)
    data, sizes = b"", []
    while host.read(CONTROL) & DRQ:
        sizes.append(block_size(host))
        data += host.take(sizes[-1])
    assert (sizes, data) == ([14, 14, 8], host.packet(INQUIRY, 0, 0, 0, 36))
    assert host.asked == []


@pytest.mark.parametrize("allocation", [1, 5, 17])
def test_odd_number_of_bytes_ends_with_padding(allocation: int) -> None:
    host = one_cd()
    begin(host, INQUIRY, 0, 0, 0, allocation, limit=0xFFFE)
    assert block_size(host) == allocation
    data = host.take(allocation + 1)
    assert data == host.packet(INQUIRY, 0, 0, 0, 36)[:allocation] + b"\0"
    assert has_succeeded(host)


def test_no_room_for_an_answer_is_no_error() -> None:
    host = one_cd()
    assert host.packet(INQUIRY) == b""
    assert has_succeeded(host)


@pytest.mark.parametrize("limit", [0, 1])
def test_limit_that_no_block_fits_is_aborted(limit: int) -> None:
    host = one_cd()
    assert host.packet(INQUIRY, 0, 0, 0, 36, limit=limit) == b""
    assert (host.line, host.read(STATUS), host.read(ERROR)) == (1, FAILURE, ABRT)
    assert host.packet(TEST_UNIT_READY, limit=limit) == b""
    assert has_succeeded(host)


@pytest.mark.parametrize(
    ("status", "expected"), [(FAILED, UNRECOVERED_READ_ERROR), (BEYOND_END, OUT_OF_RANGE)]
)
def test_sector_that_cannot_be_read_ends_the_command(status: int, expected: tuple[int, int]) -> None:
    host = one_cd()
    begin(host, READ_10, 0, 0, 0, 0, 9, 0, 0, 3, limit=CD_SECTOR)
    host.read(STATUS)
    host.status = status
    assert host.take(CD_SECTOR) == content(host, 9, 1)
    assert sense(host) == expected


# --- Sense ----------------------------------------------------------------------------------------------


def test_there_is_no_unit_attention_after_a_reset() -> None:
    host = one_cd()
    assert host.packet(TEST_UNIT_READY) == b""
    assert has_succeeded(host)


def test_sense_is_fetched_once() -> None:
    host = one_cd()
    host.packet(0xFF)
    assert sense(host) == INVALID_COMMAND
    assert has_succeeded(host)
    assert host.packet(REQUEST_SENSE, 0, 0, 0, 18)[2:13:10] == b"\0\0"


def test_sense_is_gone_with_the_next_command() -> None:
    host = one_cd()
    host.packet(0xFF)
    host.packet(TEST_UNIT_READY)
    assert host.packet(REQUEST_SENSE, 0, 0, 0, 18)[2:13:10] == b"\0\0"


# --- Reading --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        (READ_10, 0, 0, 0, 0, 198, 0, 0, 2),
        (READ_12, 0, 0, 0, 0, 198, 0, 0, 0, 2),
        (READ_CD, 0, 0, 0, 0, 198, 0, 0, 2, 0x10),
    ],
    ids=("read 10", "read 12", "read cd"),
)
def test_reads_give_the_sectors_up_to_the_last(command: tuple[int, ...]) -> None:
    host = one_cd()
    assert host.packet(*command) == content(host, 198, 2)
    assert has_succeeded(host)
    beyond = [*command]
    beyond[5] = 199
    assert host.packet(*beyond) == b""
    assert sense(host) == OUT_OF_RANGE


@pytest.mark.parametrize("lba", [0, 250])
def test_read_of_no_sectors_is_done_at_once(lba: int) -> None:
    host = one_cd()
    assert host.packet(READ_10, 0, 0, 0, 0, lba) == b""
    assert has_succeeded(host)
    assert host.asked == []


def test_read_cd_of_nothing_is_done_and_of_headers_is_refused() -> None:
    host = one_cd()
    assert host.packet(READ_CD, 0, 0, 0, 0, 1, 0, 0, 1, 0x00) == b""
    assert has_succeeded(host)
    assert host.packet(READ_CD, 0, 0, 0, 0, 1, 0, 0, 0, 0xF8) == b""
    assert has_succeeded(host)
    assert host.packet(READ_CD, 0, 0, 0, 0, SECTORS, 0, 0, 1, 0x00) == b""
    assert sense(host) == OUT_OF_RANGE
    assert host.packet(READ_CD, 0, 0, 0, 0, 1, 0, 0, 1, 0xF8) == b""
    assert sense(host) == INVALID_FIELD


def test_seek_checks_the_address() -> None:
    host = one_cd()
    host.packet(SEEK_10, 0, 0, 0, 0, 199)
    assert has_succeeded(host)
    host.packet(SEEK_10, 0, 0, 0, 0, 200)
    assert sense(host) == OUT_OF_RANGE


def test_capacity_is_the_last_sector_and_its_size() -> None:
    assert one_cd().packet(READ_CAPACITY) == bytes((0, 0, 0, 199, 0, 0, 8, 0))
    assert one_cd(1 << 40).packet(READ_CAPACITY) == bytes((0xFF, 0xFF, 0xFF, 0xFE, 0, 0, 8, 0))


# --- What the disc is like ------------------------------------------------------------------------------

TRACK = bytes((0, 0x14, 1, 0))
LEAD_OUT = bytes((0, 0x16, 0xAA, 0))


@pytest.mark.parametrize(
    ("first", "as_time", "expected"),
    [
        (0, 0, bytes((0, 18, 1, 1)) + TRACK + bytes(4) + LEAD_OUT + bytes((0, 0, 0, 200))),
        (1, 2, bytes((0, 18, 1, 1)) + TRACK + bytes((0, 0, 2, 0)) + LEAD_OUT + bytes((0, 0, 4, 50))),
        (0xAA, 0, bytes((0, 10, 1, 1)) + LEAD_OUT + bytes((0, 0, 0, 200))),
    ],
)
def test_toc_has_one_track_and_the_lead_out(first: int, as_time: int, expected: bytes) -> None:
    host = one_cd()
    assert host.packet(READ_TOC, as_time, 0, 0, 0, 0, first, 0, 40) == expected
    assert host.packet(READ_TOC, as_time, 0, 0, 0, 0, first, 0, 4) == expected[:4]


def test_toc_of_a_track_that_is_not_there_is_refused() -> None:
    host = one_cd()
    host.packet(READ_TOC, 0, 0, 0, 0, 0, 2, 0, 40)
    assert sense(host) == INVALID_FIELD


@pytest.mark.parametrize(("byte_2", "byte_9"), [(1, 0), (0, 0x40)], ids=("mmc", "sff"))
def test_session_is_the_first(byte_2: int, byte_9: int) -> None:
    data = one_cd().packet(READ_TOC, 0, byte_2, 0, 0, 0, 0, 0, 40, byte_9)
    assert data == bytes((0, 10, 1, 1)) + TRACK + bytes(4)


def test_raw_toc_has_three_points_and_the_track() -> None:
    data = one_cd().packet(READ_TOC, 2, 2, 0, 0, 0, 0, 0, 100)
    assert data[:4] == bytes((0, 46, 1, 1))
    points = {data[place + 3]: data[place + 7 : place + 11] for place in range(4, 48, 11)}
    assert points == {
        0xA0: bytes((0, 1, 0, 0)),
        0xA1: bytes((0, 1, 0, 0)),
        0xA2: bytes((0, 0, 4, 50)),
        1: bytes((0, 0, 2, 0)),
    }


def test_other_formats_of_the_toc_are_refused() -> None:
    host = one_cd()
    host.packet(READ_TOC, 0, 5, 0, 0, 0, 0, 0, 40)
    assert sense(host) == INVALID_FIELD


def test_disc_is_complete_with_one_session() -> None:
    data = one_cd().packet(READ_DISC_INFORMATION, 0, 0, 0, 0, 0, 0, 0, 100)
    assert (len(data), data[:7]) == (34, bytes((0, 32, 0x0E, 1, 1, 1, 1)))


def test_sub_channel_has_no_audio() -> None:
    host = one_cd()
    assert host.packet(READ_SUB_CHANNEL, 0, 0, 0, 0, 0, 0, 0, 16) == bytes((0, 0x15, 0, 0))
    data = host.packet(READ_SUB_CHANNEL, 2, 0x40, 1, 0, 0, 0, 0, 16)
    assert data == bytes((0, 0x15, 0, 12, 1, 0x14, 1, 1, 0, 0, 2, 0, 0, 0, 0, 0))
    host.packet(READ_SUB_CHANNEL, 2, 0x40, 2, 0, 0, 0, 0, 16)
    assert sense(host) == INVALID_FIELD


# --- What the drive is like -----------------------------------------------------------------------------


def test_inquiry_is_of_a_removable_cd_rom_drive() -> None:
    host = one_cd()
    data = host.packet(INQUIRY, 0, 0, 0, 96)
    assert data[:5] == bytes((5, 0x80, 0, 0x21, 31))
    assert data[8:] == b"KVMBOX  CD-ROM          1.0 "
    host.packet(INQUIRY, 1, 0, 0, 96)
    assert sense(host) == INVALID_FIELD


@pytest.mark.parametrize(("page", "length"), [(0x01, 8), (0x0E, 16), (0x2A, 22), (0x3F, 46)])
def test_mode_pages_are_sensed_with_both_headers(page: int, length: int) -> None:
    host = one_cd()
    long = host.packet(MODE_SENSE_10, 0, page, 0, 0, 0, 0, 0, 100)
    short = host.packet(MODE_SENSE_6, 0, page, 0, 100)
    assert long[:8] == bytes((0, length + 6, 1, 0, 0, 0, 0, 0))
    assert short[:4] == bytes((length + 3, 1, 0, 0))
    assert long[8:] == short[4:]
    assert (len(long), long[8], long[9]) == (8 + length, page if page != 0x3F else 1, long[9])


@pytest.mark.parametrize(
    ("page", "expected"),
    [(0x05, INVALID_FIELD), (0x41, INVALID_FIELD), (0x81, INVALID_FIELD), (0xC1, SAVING_NOT_SUPPORTED)],
)
def test_other_mode_pages_and_other_values_are_refused(page: int, expected: tuple[int, int]) -> None:
    host = one_cd()
    host.packet(MODE_SENSE_10, 0, page, 0, 0, 0, 0, 0, 100)
    assert sense(host) == expected


@pytest.mark.parametrize(("sectors", "profile"), [(360_000, 0x08), (360_001, 0x10)])
def test_configuration_tells_a_cd_from_a_dvd(sectors: int, profile: int) -> None:
    data = one_cd(sectors).packet(GET_CONFIGURATION, 0, 0, 0, 0, 0, 0, 0, 100)
    assert data[:12] == bytes((0, 0, 0, 16, 0, 0, 0, profile, 0, 0, 3, 8))
    assert data[12:] == bytes((0, 0x10, profile == 0x10, 0, 0, 0x08, profile == 0x08, 0))


def test_configuration_from_a_later_feature_has_none() -> None:
    host = one_cd()
    assert host.packet(GET_CONFIGURATION, 0, 0, 1, 0, 0, 0, 0, 100) == bytes((0, 0, 0, 4, 0, 0, 0, 8))
    host.packet(GET_CONFIGURATION, 3, 0, 0, 0, 0, 0, 0, 100)
    assert sense(host) == INVALID_FIELD


def test_mechanism_has_no_changer_and_any_speed_will_do() -> None:
    host = one_cd()
    assert host.packet(MECHANISM_STATUS, 0, 0, 0, 0, 0, 0, 0, 0, 8) == bytes((0, 0, 0, 0, 0, 1, 0, 0))
    host.packet(SET_SPEED, 0, 0xFF, 0xFF)
    assert has_succeeded(host)


# --- The tray -------------------------------------------------------------------------------------------


def events(host: IdeHost) -> bytes:
    return host.packet(GET_EVENTS, 1, 0, 0, 0x10, 0, 0, 0, 8)


def test_events_tell_whether_the_medium_is_there() -> None:
    host = one_cd()
    assert events(host) == bytes((0, 4, 4, 0x10, 0, 2, 0, 0))
    host.packet(*EJECT)
    assert events(host) == bytes((0, 4, 4, 0x10, 0, 1, 0, 0))
    assert host.packet(GET_EVENTS, 1, 0, 0, 0x02, 0, 0, 0, 8) == bytes((0, 0, 0x80, 0x10))
    host.packet(GET_EVENTS, 0, 0, 0, 0x10, 0, 0, 0, 8)
    assert sense(host) == INVALID_FIELD


@pytest.mark.parametrize(
    "opcode",
    [
        *(TEST_UNIT_READY, READ_CAPACITY, READ_10, READ_12, READ_CD, SEEK_10, READ_TOC),
        *(READ_DISC_INFORMATION, READ_SUB_CHANNEL),
    ],
)
def test_open_tray_has_no_medium(opcode: int) -> None:
    host = one_cd()
    host.packet(*EJECT)
    assert has_succeeded(host)
    host.packet(opcode, 0, 0, 0, 0, 0, 0, 0, 8)
    assert sense(host) == MEDIUM_NOT_PRESENT
    host.packet(*LOAD)
    assert has_succeeded(host)
    host.packet(TEST_UNIT_READY)
    assert has_succeeded(host)


def test_open_tray_is_told_by_mode_sense_and_configuration() -> None:
    host = one_cd()
    host.packet(*EJECT)
    assert host.packet(MODE_SENSE_10, 0, 1, 0, 0, 0, 0, 0, 100)[2] == 0x71
    assert host.packet(GET_CONFIGURATION, 0, 0, 0, 0, 0, 0, 0, 8)[7] == 0


def test_locked_tray_stays_closed() -> None:
    host = one_cd()
    host.packet(PREVENT_REMOVAL, 0, 0, 0, 1)
    assert host.packet(MODE_SENSE_10, 0, 0x2A, 0, 0, 0, 0, 0, 100)[8 + 6] & 2
    host.packet(*EJECT)
    assert sense(host) == REMOVAL_PREVENTED
    host.packet(TEST_UNIT_READY)
    assert has_succeeded(host)
    host.packet(PREVENT_REMOVAL)
    host.packet(*EJECT)
    assert has_succeeded(host)


@pytest.mark.parametrize("how", [0x00, 0x01, 0x12, 0x32])
def test_start_stop_and_power_conditions_leave_the_tray(how: int) -> None:
    host = one_cd()
    host.packet(START_STOP, 0, 0, 0, how)
    assert has_succeeded(host)
    host.packet(TEST_UNIT_READY)
    assert has_succeeded(host)


def test_reset_of_the_machine_closes_and_unlocks_the_tray() -> None:
    host = one_cd()
    host.packet(*EJECT)
    host.packet(PREVENT_REMOVAL, 0, 0, 0, 1)
    host.model.reset(0)
    host.model.take_effects()
    host.line = 0
    host.select(1, 0)
    host.packet(TEST_UNIT_READY)
    assert has_succeeded(host)
    host.packet(*EJECT)
    assert has_succeeded(host)
