"""An IDE channel: the task files of two drives, selection, the interrupt line, resets, snapshots."""

from __future__ import annotations

import pytest

from kvmbox.contract.bulk_data import Window
from kvmbox.contract.model import DONE, FAILED, MOVED, IrqLine, SnapshotError
from kvmbox.devices.ide.model import PARAMETERS, IdeChannel
from kvmbox.devices.ide.registers import (
    BSY,
    COMMAND,
    CONTROL,
    COUNT,
    DATA,
    DEVICE,
    DRQ,
    ERROR,
    FEATURES,
    HOB,
    LBA_HIGH,
    LBA_LOW,
    LBA_MID,
    NIEN,
    REGISTER_COUNT,
    SRST,
    STATUS,
)
from tests.support.ide_host import ALONE, CD_SECTOR, IdeHost, cd, disk, pattern

READ_SECTORS = 0x20
RECALIBRATE = 0x10
PACKET = 0xA0
SECTORS = 100
CD_SECTORS = 20


def channel(*, holds: bool = False) -> IdeHost:
    """A disk as the master, a CD drive as the slave."""
    media = pattern(SECTORS), pattern(CD_SECTORS, CD_SECTOR)
    return IdeHost(master=disk(SECTORS, b"D1"), slave=cd(CD_SECTORS, b"C2"), media=media, holds=holds)


def single(parameters: bytes, *, slave: bool = False) -> IdeHost:
    """One drive, and nothing at the other place."""
    return IdeHost(slave=parameters) if slave else IdeHost(master=parameters)


def signature(host: IdeHost) -> tuple[int, ...]:
    return tuple(host.read(register) for register in (COUNT, LBA_LOW, LBA_MID, LBA_HIGH))


# --- The task file --------------------------------------------------------------------------------------


def test_drives_say_after_power_on_what_they_are() -> None:
    host = channel()
    assert (signature(host), host.read(STATUS), host.read(DEVICE)) == ((1, 1, 0, 0), 0x50, 0xA0)
    host.select(1, 0)
    assert (signature(host), host.read(STATUS), host.read(DEVICE)) == ((1, 1, 0x14, 0xEB), 0x00, 0xB0)


def test_both_drives_take_what_is_written() -> None:
    host = channel()
    for register in (COUNT, LBA_LOW, LBA_MID, LBA_HIGH):
        host.write(register, 0x10 + register)
    host.select(1)
    assert signature(host) == (0x12, 0x13, 0x14, 0x15)
    assert host.read(DEVICE) == 0xF0


def test_hob_shows_the_previous_content_until_a_register_is_written() -> None:
    host = channel()
    for register in (COUNT, LBA_LOW, LBA_MID, LBA_HIGH):
        host.write(register, 0x10 + register)
        host.write(register, 0x20 + register)
    assert signature(host) == (0x22, 0x23, 0x24, 0x25)
    host.write(CONTROL, HOB)
    assert signature(host) == (0x12, 0x13, 0x14, 0x15)
    assert host.read(ERROR) == 0
    host.write(FEATURES, 0)
    assert signature(host) == (0x22, 0x23, 0x24, 0x25)


def test_wide_accesses_of_other_registers_are_their_bytes() -> None:
    host = channel()
    host.write(COUNT, 0x3412, size=2)
    assert (host.read(COUNT), host.read(LBA_LOW)) == (0x12, 0x34)
    assert host.read(COUNT, 2) == 0x3412


@pytest.mark.parametrize(
    ("offset", "size", "value"), [(9, 1, 0xFF), (-1, 1, 0xFF), (0, 3, 0), (1 << 40, 2, 0xFFFF)]
)
def test_what_is_no_register_reads_as_ones_and_takes_nothing(offset: int, size: int, value: int) -> None:
    model = channel().model
    before = model.snapshot()
    model.write(0, offset, size, 0x5A)
    assert model.read(0, offset, size) == value
    assert (model.snapshot(), model.take_effects()) == (before, [])


def test_data_register_has_no_bytes_and_without_drq_no_data() -> None:
    host = channel()
    assert (host.read(DATA), host.read(DATA, 2), host.read(DATA, 4)) == (0xFF, 0, 0)
    host.command(0xEC)
    host.write(DATA, 5)
    assert host.read(DATA) == 0xFF
    assert host.read(DATA, 2) == 0x0040  # the first word is still there


def test_registers_keep_their_content_while_a_drive_is_busy_or_has_data() -> None:
    host = channel(holds=True)
    host.task(1, 7)
    assert host.command(READ_SECTORS) == BSY
    host.write(LBA_LOW, 99)
    host.write(DEVICE, 0xB0)
    host.write(COMMAND, RECALIBRATE)
    host.answer()
    assert host.read(CONTROL) == 0x58
    host.write(LBA_LOW, 99)
    assert (host.read(LBA_LOW), host.read(DEVICE)) == (8, 0xA0)
    assert host.take(512) == pattern(SECTORS)[6 * 512 : 7 * 512]


# --- Drives that are not there --------------------------------------------------------------------------


@pytest.mark.parametrize("slave", [False, True])
def test_a_place_without_a_drive_has_status_0_and_obeys_nothing(slave: bool) -> None:
    host = single(disk(SECTORS), slave=slave)
    host.select(0 if slave else 1, 0)
    assert signature(host) == (1, 1, 0xFF, 0xFF)
    host.write(COUNT, 0x55)
    for command in (0xEC, 0xA1, READ_SECTORS, PACKET, 0x08, 0xE7):
        assert host.command(command) == 0
    assert (host.read(STATUS), host.read(ERROR), host.read(COUNT), host.read(DATA, 2)) == (0, 0, 0x55, 0)
    assert (host.asked, host.rises) == ([], 0)
    host.select(1 if slave else 0, 0)
    assert host.read(STATUS) == 0x50


def test_channel_without_drives_answers_to_everything() -> None:
    model = IdeChannel()
    for offset in range(9):
        model.write(0, offset, 1, 0x90)
        assert 0 <= model.read(0, offset, 1) <= 0xFF
    assert model.take_effects() == []


@pytest.mark.parametrize("parameters", [b"x", PARAMETERS.pack(3, 1, b""), PARAMETERS.pack(0x41, 1, b"")])
def test_parameters_that_are_no_drive_are_refused(parameters: bytes) -> None:
    with pytest.raises(ValueError, match="IDE drive"):
        IdeChannel(slave=parameters)


# --- Interrupts -----------------------------------------------------------------------------------------


def test_registers_are_steady_but_data() -> None:
    channel = IdeChannel()

    assert all(channel.steady(offset, 1, 0) for offset in range(1, REGISTER_COUNT))
    assert not any(channel.steady(DATA, size, 0) for size in (1, 2, 4))


def test_status_takes_the_interrupt_away_and_alternate_status_does_not() -> None:
    host = channel()
    host.command(RECALIBRATE)
    assert host.line == 1
    assert host.read(CONTROL) == 0x50
    assert host.line == 1
    assert host.read(STATUS) == 0x50
    assert host.line == 0


def test_new_command_takes_the_interrupt_away() -> None:
    host = channel()
    host.command(RECALIBRATE)
    host.model.write(0, COMMAND, 1, RECALIBRATE)
    assert host.model.take_effects() == [IrqLine(0, 0), IrqLine(0, 1)]
    host.select(0)
    host.task(1, 0)
    host.command(0x30)
    assert host.line == 0


def test_nien_keeps_the_interrupt_pending() -> None:
    host = channel()
    host.write(CONTROL, NIEN)
    host.command(RECALIBRATE)
    assert host.line == 0
    host.write(CONTROL, 0)
    assert host.line == 1
    host.write(CONTROL, NIEN)
    assert host.line == 0
    host.read(STATUS)
    host.write(CONTROL, 0)
    assert host.line == 0


def test_line_is_that_of_the_selected_drive() -> None:
    host = channel()
    host.command(RECALIBRATE)
    host.select(1)
    assert host.line == 0
    assert host.read(STATUS) == 0x00
    host.select(0)
    assert host.line == 1


# --- Resets ---------------------------------------------------------------------------------------------


def test_srst_makes_both_drives_busy_until_it_is_cleared() -> None:
    host = channel()
    host.select(1)
    host.write(LBA_LOW, 9)
    host.write(CONTROL, SRST)
    assert host.read(STATUS) == BSY
    host.write(COMMAND, RECALIBRATE)
    host.write(COMMAND, 0x08)
    host.write(DEVICE, 0xA0)
    assert host.read(CONTROL) == BSY
    host.write(CONTROL, 0)
    assert (host.read(DEVICE), host.read(STATUS), host.read(ERROR)) == (0xA0, 0x50, 1)
    assert signature(host) == (1, 1, 0, 0)
    host.write(CONTROL, HOB)
    assert signature(host) == (0, 0, 0, 0)
    host.select(1, 0)
    assert (host.read(STATUS), host.read(ERROR), signature(host)) == (0x00, 1, (1, 1, 0x14, 0xEB))
    assert host.rises == 0


def test_srst_ends_a_command_and_its_window() -> None:
    host = channel()
    host.task(2, 3)
    host.command(READ_SECTORS)
    tag = host.model.snapshot()
    host.write(CONTROL, SRST)
    assert host.asked[-1] == Window(4, 0, 0, 0, 1)
    assert host.line == 0
    host.write(CONTROL, 0)
    assert host.read(DATA, 2) == 0
    host.model.complete(0, 2, MOVED)
    assert host.read(STATUS) == 0x50
    assert tag != host.model.snapshot()


def test_srst_with_nien_keeps_the_interrupt_off() -> None:
    host = channel()
    host.command(RECALIBRATE)
    host.write(CONTROL, SRST | NIEN)
    host.write(CONTROL, NIEN)
    host.command(RECALIBRATE)
    assert host.line == 0


def test_drive_is_held_also_when_a_place_without_one_gets_a_command() -> None:
    host = single(disk(SECTORS))
    host.select(1)
    host.write(CONTROL, SRST)
    host.write(COMMAND, 0x90)  # both drives obey, but for a reset
    another = single(disk(SECTORS))
    another.model.restore(host.model.snapshot())
    host.select(0)
    assert host.read(CONTROL) == BSY


def settings(host: IdeHost) -> tuple[int, int]:
    """Sectors of a block, sectors of a track."""
    host.select(0)
    host.command(0xEC)
    words = host.take(512)
    host.read(STATUS)
    return words[2 * 59], words[2 * 56]


def test_srst_keeps_the_translation_and_a_hardware_reset_keeps_nothing() -> None:
    host = channel()
    host.write(COUNT, 2)
    host.command(0xC6)
    host.command(0x91)
    assert settings(host) == (2, 2)
    host.write(CONTROL, SRST)
    host.write(CONTROL, 0)
    assert settings(host) == (16, 2)
    host.model.reset(0)
    assert settings(host) == (16, 63)


def test_diagnosis_is_of_both_drives_and_selects_the_master() -> None:
    host = channel()
    host.select(1)
    host.write(COMMAND, 0x90)
    assert (host.read(DEVICE), host.read(CONTROL), host.read(ERROR), host.line) == (0xA0, 0x50, 1, 1)
    host.read(STATUS)
    host.select(1)
    assert (host.read(CONTROL), host.read(ERROR), host.line) == (0x00, 1, 0)


def test_reset_of_the_machine_forgets_what_was_asked_for() -> None:
    host = channel(holds=True)
    host.select(0)
    host.task(1, 3)
    host.command(READ_SECTORS)
    host.model.reset(0)
    assert host.model.take_effects() == []  # the VMM has dropped the window by itself
    host.model.complete(0, 2, DONE)
    assert host.read(STATUS) == 0x50
    host.select(0)
    host.task(1, 4)
    host.command(READ_SECTORS)
    assert host.asked[-1] == Window(4, 0, 4 * 512, 512, ALONE)
    host.model.complete(0, 2, FAILED)
    assert host.read(CONTROL) == BSY


def test_reset_of_the_machine_lowers_the_line() -> None:
    host = channel()
    host.command(RECALIBRATE)
    host.model.reset(0)
    assert host.model.take_effects() == [IrqLine(0, 0)]


# --- Snapshots ------------------------------------------------------------------------------------------


def in_each_phase() -> list[tuple[str, IdeHost]]:
    """Channels in all phases that commands have."""
    found: list[tuple[str, IdeHost]] = []

    def add(name: str, *, holds: bool = False) -> IdeHost:
        found.append((name, channel(holds=holds)))
        return found[-1][1]

    add("idle")
    add("sending").command(0xEC)
    found[-1][1].take(100)
    for name, command, holds in (
        ("fetching", 0x24, True),
        ("reading", 0x29, False),
        ("writing", 0x34, False),
    ):
        host = add(name, holds=holds)
        host.select(0)
        host.wide_task(20, 5)
        host.command(command)
    host = add("storing", holds=True)
    host.task(3, 1)
    host.command(0x30)
    host.give(bytes(512))
    add("flushing", holds=True).command(0xE7)
    add("resetting").write(CONTROL, SRST)
    host = add("taking")
    host.select(1)
    host.command(PACKET)
    host.give(b"\x12\0\0\0")
    host = add("replying")
    host.select(1)
    host.write(LBA_MID, 10)
    host.command(PACKET)
    host.give(bytes((0x12, 0, 0, 0, 36)).ljust(12, b"\0"))
    host = add("open and locked")
    host.select(1)
    host.packet(0x1B, 0, 0, 0, 2)
    host.packet(0x1E, 0, 0, 0, 1)
    host.packet(0x00)
    return found


@pytest.mark.parametrize(
    ("name", "host"), in_each_phase(), ids=lambda one: one if isinstance(one, str) else ""
)
def test_restored_channel_is_the_same(name: str, host: IdeHost) -> None:
    state = host.model.snapshot()
    other = channel().model
    other.write(0, COMMAND, 1, RECALIBRATE)
    other.restore(state)
    assert other.take_effects() == []
    assert other.snapshot() == state
    for offset in (*range(9), *range(9)):
        size = 2 if offset == DATA else 1
        assert other.read(0, offset, size) == host.model.read(0, offset, size)
    assert other.take_effects() == host.model.take_effects()


def test_restored_channel_knows_the_level_of_its_line() -> None:
    host = channel()
    host.command(RECALIBRATE)
    other = channel().model
    other.restore(host.model.snapshot())
    other.read(0, STATUS, 1)
    assert other.take_effects() == [IrqLine(0, 0)]


@pytest.mark.parametrize(
    ("name", "host"), in_each_phase(), ids=lambda one: one if isinstance(one, str) else ""
)
def test_no_byte_of_a_snapshot_can_be_missing_and_none_added(name: str, host: IdeHost) -> None:
    state = host.model.snapshot()
    for damaged in (state[:-1], state + b"\0", b"", state[:4], b"IDE\x02" + state[4:]):
        with pytest.raises(SnapshotError):
            host.model.restore(damaged)
        assert host.model.snapshot() == state


def test_snapshot_of_other_drives_is_refused() -> None:
    host = channel()
    host.select(1)
    host.command(PACKET)
    with pytest.raises(SnapshotError):
        IdeChannel(master=disk(SECTORS), slave=disk(SECTORS)).restore(host.model.snapshot())
    with pytest.raises(SnapshotError):
        IdeChannel(master=disk(SECTORS)).restore(host.model.snapshot())


def test_snapshot_of_a_larger_disk_is_refused_where_sectors_are_missing() -> None:
    host = channel(holds=True)
    host.select(0)
    host.task(1, 90)
    host.command(READ_SECTORS)
    with pytest.raises(SnapshotError, match="sectors"):
        IdeChannel(master=disk(90), slave=cd(CD_SECTORS)).restore(host.model.snapshot())


def test_snapshot_of_a_larger_cd_is_refused_where_sectors_are_missing() -> None:
    host = channel(holds=True)
    host.select(1, 0)
    host.packet(0x28, 0, 0, 0, 0, CD_SECTORS - 1, 0, 0, 1)
    with pytest.raises(SnapshotError, match="bytes"):
        IdeChannel(master=disk(SECTORS), slave=cd(CD_SECTORS - 1)).restore(host.model.snapshot())


def master_and_slave(state: bytes) -> tuple[bytes, bytes]:
    """The states of the two drives."""
    size = int.from_bytes(state[5:7], "little")
    return state[9 : 9 + size], state[9 + size :]


def test_two_commands_under_way_are_refused() -> None:
    host, other = channel(), channel()
    host.command(0xEC)
    other.select(1, 0)
    other.command(0xA1)
    master, _ = master_and_slave(host.model.snapshot())
    _, slave = master_and_slave(other.model.snapshot())
    slave = slave[:10] + b"\xa0" + slave[11:]  # as if the master were selected
    sizes = len(master).to_bytes(2, "little") + len(slave).to_bytes(2, "little")
    with pytest.raises(SnapshotError, match="not selected"):
        channel().model.restore(host.model.snapshot()[:5] + sizes + master + slave)


def test_srst_without_drives_that_are_held_is_refused() -> None:
    state = bytearray(channel().model.snapshot())
    state[4] |= SRST
    with pytest.raises(SnapshotError, match="device control"):
        channel().model.restore(bytes(state))


def test_status_drq_is_never_there_without_a_phase() -> None:
    model = channel().model
    state = bytearray(model.snapshot())
    place = state.index(bytes((0xA0, 0x00, 0x50))) + 2  # device, error and status of the master
    state[place] |= DRQ
    with pytest.raises(SnapshotError, match="status"):
        model.restore(bytes(state))
