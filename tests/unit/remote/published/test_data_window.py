"""The window of a device: what the VMM serves, what the model is told, and where the bytes end up."""

from __future__ import annotations

import errno
from typing import Final

import pytest

from kvmbox.base.errors import DeviceProcessError
from kvmbox.contract.model import BEYOND_END, BUSY, FAILED, NO_SPACE
from kvmbox.remote.published.data_window import CLOSED, READS, WRITES, WindowState
from kvmbox.wire import protocol
from tests.support import window_disk
from tests.support.halves import Half, built_halves
from tests.support.window_disk import FLUSH, IDLE, LATER, OWN, READ, READY, SECTOR, WRITE
from tests.support.window_rig import CONTENT, PORT, SECTORS, WindowRig

NEW: Final = bytes((place * 3 + 1) & 0xFF for place in range(3 * SECTOR))
OWN_WORD: Final = (OWN & 0xFFFF).to_bytes(2, "little")


@pytest.fixture(params=built_halves(), ids=lambda half: "compiled" if half.is_compiled else "pure")
def rig(request: pytest.FixtureRequest) -> WindowRig:
    half: Half = request.param
    return WindowRig(half)


def sector(number: int, count: int = 1) -> bytes:
    return CONTENT[number * SECTOR : (number + count) * SECTOR]


# --- To the guest ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 4])
def test_guest_reads_a_sector_word_by_word_without_the_model(rig: WindowRig, size: int) -> None:
    rig.command(READ, 3)
    assert rig.state == READY
    read = [rig.ports.read(PORT, size).to_bytes(size, "little") for _ in range(SECTOR // size)]
    assert b"".join(read) == sector(3)
    assert rig.state == IDLE
    assert rig.ports.read(PORT, size) == OWN & ((1 << 8 * size) - 1)


@pytest.mark.parametrize("size", [2, 4])
def test_string_goes_through_the_windows_that_the_model_opens_one_after_another(
    rig: WindowRig, size: int
) -> None:
    rig.command(READ, 2, 3)
    assert rig.ports.read_string(PORT, size, 3 * SECTOR // size) == sector(2, 3)
    assert rig.state == IDLE


@pytest.mark.skipif(len(built_halves()) < 2, reason="compiled: not built")
@pytest.mark.parametrize(("number", "requests"), [(1, 2), (2, 4)])
def test_compiled_code_tells_a_quiet_model_with_the_next_read(number: int, requests: int) -> None:
    rig = WindowRig(built_halves()[-1])  # its model says of odd sectors that they are quiet
    rig.command(READ, number - 1)
    assert rig.ports.read_string(PORT, 2, SECTOR // 2) == sector(number - 1)
    rig.ports.read(PORT + 3, 1)
    before = rig.channel._sequence
    rig.command(READ, number)
    assert rig.host.log[-1] == ("irq", 14, 1, 0)
    assert rig.state == READY
    assert rig.ports.read_string(PORT, 2, SECTOR // 2) == sector(number)
    assert rig.state == IDLE
    assert rig.channel._sequence - before - 3 == requests


@pytest.mark.skipif(len(built_halves()) < 2, reason="compiled: not built")
@pytest.mark.parametrize("kind", [protocol.ADVANCE, protocol.SNAPSHOT])
def test_model_is_told_before_it_is_asked_anything_else(kind: int) -> None:
    rig = WindowRig(built_halves()[-1])
    rig.command(READ, 1)
    assert rig.state == READY
    assert rig.ports.read_string(PORT, 2, SECTOR // 2) == sector(1)
    assert rig.model.state == READY
    rig.channel.request(kind, limit=1 << 32)
    assert rig.model.state == IDLE
    rig.command(READ, 1)
    rig.ports.write(PORT + 1, 1, 7)
    assert (rig.model.state, rig.model.count) == (READY, 7)


def test_rest_of_a_string_goes_to_the_model(rig: WindowRig) -> None:
    rig.command(READ, 1)
    assert rig.ports.read_string(PORT, 2, SECTOR // 2 + 3) == sector(1) + 3 * OWN_WORD


def test_sizes_may_change_within_a_window(rig: WindowRig) -> None:
    rig.command(READ)
    data = rig.ports.read(PORT, 2).to_bytes(2, "little") + rig.ports.read(PORT, 4).to_bytes(4, "little")
    data += rig.ports.read_string(PORT, 2, 5) + rig.ports.read_string(PORT, 4, 124)
    assert data == sector(0)


def test_access_that_does_not_fit_goes_to_the_model_and_leaves_the_window(rig: WindowRig) -> None:
    rig.command(READ)
    rig.ports.read_string(PORT, 2, SECTOR // 2 - 1)
    assert rig.ports.read(PORT, 4) == OWN
    assert rig.ports.read_string(PORT, 4, 2) == 2 * OWN.to_bytes(4, "little")
    assert rig.state == READY
    assert rig.ports.read(PORT, 2).to_bytes(2, "little") == sector(0)[-2:]
    assert rig.state == IDLE


def test_other_registers_and_sizes_are_the_models(rig: WindowRig) -> None:
    rig.command(READ)
    assert rig.ports.read(PORT, 1) == OWN & 0xFF
    assert rig.ports.read(PORT + 2, 2) == OWN & 0xFFFF
    rig.ports.write(PORT, 2, 0x1234)  # in the wrong direction
    assert rig.model.written == [0x1234]
    assert rig.ports.read_string(PORT, 2, SECTOR // 2) == sector(0)


def test_read_that_has_to_wait_is_told_of_when_it_is_there(rig: WindowRig) -> None:
    rig.store.waits = True
    rig.command(READ, 5)
    assert rig.window.use == CLOSED
    assert rig.ports.read(PORT, 2) == OWN & 0xFFFF
    assert rig.state == window_disk.BUSY
    rig.do_errand()
    assert rig.state == READY
    assert rig.ports.read_string(PORT, 2, SECTOR // 2) == sector(5)


def test_read_whose_window_was_dropped_is_not_told_of(rig: WindowRig) -> None:
    rig.store.waits = True
    rig.command(READ, 5)
    rig.command(window_disk.NONE)
    rig.do_errand()
    assert rig.state == IDLE
    assert rig.window.use == CLOSED


@pytest.mark.parametrize(("number", "status"), [(errno.EIO, FAILED), (errno.ENOSPC, NO_SPACE)])
@pytest.mark.parametrize("waits", [False, True])
def test_read_that_fails_has_no_window(rig: WindowRig, waits: bool, number: int, status: int) -> None:
    rig.store.waits, rig.store.fails = waits, number
    rig.command(READ)
    if waits:
        rig.do_errand()
    assert rig.state == status << 4
    assert rig.window.use == CLOSED
    assert rig.window.state() is None


# --- From the guest ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 4])
def test_guest_writes_a_sector_word_by_word_without_the_model(rig: WindowRig, size: int) -> None:
    rig.command(WRITE, 3)
    assert rig.state == READY
    for start in range(0, SECTOR, size):
        assert rig.store.calls == []  # not before the last byte
        rig.ports.write(PORT, size, int.from_bytes(NEW[start : start + size], "little"))
    assert rig.state == IDLE
    assert rig.store.calls == ["write 1536+512"]
    assert rig.store.data == sector(0, 3) + NEW[:SECTOR] + sector(4, 4)
    assert rig.model.written == []


def test_string_writes_through_windows_and_its_rest_goes_to_the_model(rig: WindowRig) -> None:
    rig.command(WRITE, 1, 3)
    rig.ports.write_string(PORT, 4, NEW + bytes(range(8)))
    assert rig.store.data == sector(0) + NEW + sector(4, 4)
    assert rig.model.written == [0x03020100, 0x07060504]


def test_write_that_has_to_wait_is_told_of_twice(rig: WindowRig) -> None:
    rig.store.writes_now = False
    rig.command(WRITE)
    rig.ports.write_string(PORT, 2, NEW[:SECTOR])
    assert rig.state == window_disk.BUSY
    assert rig.store.calls == []
    rig.do_errand()
    assert rig.state == IDLE
    assert rig.store.data[:SECTOR] == NEW[:SECTOR]


@pytest.mark.parametrize("writes_now", [False, True])
def test_write_that_fails_is_told_of(rig: WindowRig, writes_now: bool) -> None:
    rig.store.writes_now, rig.store.fails = writes_now, errno.ENOSPC
    rig.command(WRITE)
    rig.ports.write_string(PORT, 2, NEW[:SECTOR])
    if not writes_now:
        rig.do_errand()
    assert rig.state == NO_SPACE << 4


@pytest.mark.parametrize("writes_now", [False, True])
def test_flush(rig: WindowRig, writes_now: bool) -> None:
    rig.store.writes_now = writes_now
    rig.command(FLUSH)
    if not writes_now:
        assert rig.state == window_disk.BUSY
        rig.do_errand()
    assert rig.store.calls == ["flush"]
    assert rig.state == IDLE


def test_string_goes_on_in_the_window_that_its_own_access_has_opened(rig: WindowRig) -> None:
    rig.command(READ | LATER, 2)
    assert rig.ports.read_string(PORT, 2, 1 + SECTOR // 2 + 1) == OWN_WORD + sector(2) + OWN_WORD
    rig.command(WRITE | LATER, 2)
    rig.ports.write_string(PORT, 4, b"pack" + NEW[:SECTOR] + b"rest")
    assert rig.store.data == sector(0, 2) + NEW[:SECTOR] + sector(3, 5)
    assert rig.model.written == [int.from_bytes(b"pack", "little"), int.from_bytes(b"rest", "little")]


# --- What ends a window ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [READ, WRITE])
def test_place_beyond_the_end_is_the_guests_fault(rig: WindowRig, command: int) -> None:
    rig.command(command, SECTORS)
    assert rig.state == BEYOND_END << 4
    assert rig.store.calls == []


def test_device_with_too_many_errands_is_busy(rig: WindowRig) -> None:
    rig.store.waits, rig.host.is_full = True, True
    rig.command(READ)
    assert rig.state == BUSY << 4
    assert rig.window.state() is None


@pytest.mark.parametrize("command", [READ, WRITE])
def test_reset_drops_the_window(rig: WindowRig, command: int) -> None:
    rig.command(command)
    rig.ports.read_string(PORT, 2, 5)
    rig.channel.request(protocol.RESET)
    assert rig.window.use == CLOSED
    assert rig.ports.read(PORT, 2) == OWN & 0xFFFF
    assert rig.store.data == CONTENT


def test_disconnected_channel_has_no_window(rig: WindowRig) -> None:
    rig.command(READ)
    rig.channel.disconnect()
    assert rig.window.use == CLOSED


def test_new_window_drops_the_old_one(rig: WindowRig) -> None:
    rig.command(WRITE)
    rig.ports.write_string(PORT, 2, NEW[:100])
    rig.command(READ, 6)
    assert rig.ports.read_string(PORT, 2, SECTOR // 2) == sector(6)
    assert rig.store.data == CONTENT


def test_model_that_raises_at_the_end_of_a_window_is_named(rig: WindowRig) -> None:
    rig.command(READ)

    def raises(*_told: int) -> None:
        raise ZeroDivisionError("the model")

    rig.model.complete = raises  # type: ignore[assignment, method-assign]
    with pytest.raises(DeviceProcessError, match="'disk' failed: ZeroDivisionError: the model"):
        rig.ports.read_string(PORT, 2, SECTOR // 2)
    with pytest.raises(DeviceProcessError):
        rig.ports.read(PORT, 2)


def test_indexed_read_carries_its_write_to_the_model_first(rig: WindowRig) -> None:
    rig.command(READ, 2)
    access, word, limit, _ = rig.proxy.fast_path(True, 2)
    word, value = rig.proxy.with_index(word, 3, window_disk.NONE)
    assert access(word, 0, value, limit) == OWN & 0xFFFF
    assert rig.window.use == CLOSED


# --- Snapshots ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moved", [0, 2, 510])
@pytest.mark.parametrize("command", [READ, WRITE])
def test_window_goes_on_where_it_was_saved(rig: WindowRig, command: int, moved: int) -> None:
    rig.command(command, 4)
    if command == READ:
        rig.ports.read_string(PORT, 2, moved // 2)
    else:
        rig.ports.write_string(PORT, 2, NEW[:moved])
    state, model = rig.window.state(), rig.model.snapshot()
    assert state is not None
    assert len(state.data) == (SECTOR if command == READ else moved)
    other = WindowRig()
    other.model.restore(model)
    medium = other.medium
    other.window.restore(0, medium, state)
    if command == READ:
        assert other.ports.read_string(PORT, 2, (SECTOR - moved) // 2) == sector(4)[moved:]
    else:
        other.ports.write_string(PORT, 2, NEW[moved:SECTOR])
        assert other.store.data == sector(0, 4) + NEW[:SECTOR] + sector(5, 3)
    assert other.state == IDLE


GOOD: Final = {
    "resource": 0,
    "tag": 1,
    "offset": 0,
    "size": SECTOR,
    "use": READS,
    "position": 2,
    "data": bytes(SECTOR),
}


@pytest.mark.parametrize(
    "change",
    [
        {"use": CLOSED},
        {"use": 3},
        {"use": WRITES},
        {"position": SECTOR},
        {"position": -1},
        {"data": bytes(SECTOR - 1)},
        {"size": 1 << 40},
        {"size": 2048, "data": bytes(2048)},
        {"offset": len(CONTENT) - SECTOR + 1},
    ],
)
def test_state_that_cannot_have_been_one_is_refused(rig: WindowRig, change: dict[str, object]) -> None:
    rig.window.restore(0, rig.medium, WindowState(**GOOD))  # type: ignore[arg-type]
    rig.window.drop()
    with pytest.raises(ValueError, match="a window that cannot be"):
        rig.window.restore(0, rig.medium, WindowState(**GOOD | change))  # type: ignore[arg-type]
    assert rig.window.use == CLOSED


# --- A row of registers ------------------------------------------------------------------------------------


def test_row_of_registers_is_written_in_order_and_goes_on_behind_an_effect(rig: WindowRig) -> None:
    rig.channel.write_wide(0, 1, bytes((1, 3, READ, 0)))
    assert (rig.model.count, rig.model.sector, rig.model.command) == (1, 3, READ)
    assert rig.ports.read_string(PORT, 2, SECTOR // 2) == sector(3)
    rig.channel.write_wide(0, 1, bytes((2, 5)), 10)
    assert (rig.model.count, rig.model.sector) == (2, 5)
