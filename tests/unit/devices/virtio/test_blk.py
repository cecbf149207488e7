"""The virtio block device: requests, pieces, statuses, and guests that write nonsense."""

from __future__ import annotations

import struct

import pytest

from kvmbox.contract.bulk_data import Chain, ChainServe, ChainTransfer, ChainUsed, ChainWrite, Flush
from kvmbox.contract.model import BEYOND_END, DONE, FAILED, Effect, SnapshotError
from kvmbox.devices.virtio import mmio
from kvmbox.devices.virtio.blk import (
    F_FLUSH,
    F_RO,
    FLUSH,
    GET_ID,
    IN,
    IOERR,
    OK,
    OUT,
    PIECE,
    UNSUPP,
    VirtioBlk,
)
from tests.unit.devices.virtio.test_mmio import accept, publish

SECTORS = 1 << 16


def disk(*, read_only: int = 0, serial: bytes = b"KB-1") -> VirtioBlk:
    model = VirtioBlk(sectors=SECTORS, read_only=read_only, serial=serial)
    accept(model, mmio.F_VERSION_1)
    publish(model)
    model.write(0, mmio.STATUS, 4, 15)
    model.take_effects()
    return model


def ask(
    model: VirtioBlk, kind: int, sector: int, data: int, *, handle: int = 7, head: bytes | None = None
) -> list[Effect]:
    """Give it a request for `data` bytes; what it does."""
    header = struct.pack("<IIQ", kind, 0, sector) if head is None else head
    out = data if kind == OUT else 0
    model.chains(0, 0, [Chain(handle, len(header) + out, data - out + 1, header)], DONE)
    return model.take_effects()


def answer(status: int, place: int, written: int, handle: int = 7) -> list[Effect]:
    return [ChainWrite(handle, place, bytes((status,))), ChainUsed(handle, written)]


def test_disk_tells_what_it_is() -> None:
    model = disk(read_only=1)

    assert model.features & (F_RO | F_FLUSH) == F_RO | F_FLUSH
    assert not disk().features & F_RO
    assert model.read(0, mmio.CONFIG, 4) == SECTORS
    assert model.read(0, mmio.CONFIG + 12, 4) == 254  # seg_max
    assert model.read(0, mmio.CONFIG + 20, 4) == 512  # blk_size


def test_request_is_served_without_another_word() -> None:
    model = disk()
    before = model.snapshot()

    assert ask(model, IN, 3, 1024) == [ChainServe(7, 0, 3 * 512, 0, 1024, 1, 1024, OK, IOERR)]
    assert ask(model, OUT, 5, 512) == [ChainServe(7, 0, 5 * 512, 16, 512, 0, 0, OK, IOERR)]
    assert ask(model, IN, 0, PIECE) == [ChainServe(7, 0, 0, 0, PIECE, 1, PIECE, OK, IOERR)]
    assert model.snapshot() == before


@pytest.mark.parametrize("kind", [IN, OUT])
def test_large_request_is_moved_in_pieces(kind: int) -> None:
    model = disk()
    skip = 16 if kind == OUT else 0
    effects = ask(model, kind, 0, 2 * PIECE + 512)

    for start, size in ((0, PIECE), (PIECE, PIECE), (2 * PIECE, 512)):
        assert effects == [ChainTransfer(7, 0, start, start + skip, size, int(kind == IN))]
        model.complete(0, 7, DONE)
        effects = model.take_effects()
    assert effects == (answer(OK, 2 * PIECE + 512, 2 * PIECE + 513) if kind == IN else answer(OK, 0, 1))


@pytest.mark.parametrize("status", [FAILED, BEYOND_END])
def test_failed_transfer_is_an_error_of_io(status: int) -> None:
    model = disk()
    ask(model, IN, 0, 2 * PIECE)

    model.complete(0, 7, status)
    assert model.take_effects() == answer(IOERR, 2 * PIECE, 0)


@pytest.mark.parametrize(
    ("sector", "size"),
    [(SECTORS, 512), (SECTORS - 1, 1024), ((1 << 64) - 1, 512), (1 << 63, 0), (0, 1), (0, 511), (0, 513)],
)
@pytest.mark.parametrize("kind", [IN, OUT])
def test_sectors_that_are_none_are_an_error_of_io(kind: int, sector: int, size: int) -> None:
    effects = ask(disk(), kind, sector, size)

    assert not any(isinstance(effect, ChainTransfer | ChainServe) for effect in effects)
    assert effects[0] == ChainWrite(7, size if kind == IN else 0, bytes((IOERR,)))


def test_read_only_disk_is_not_written() -> None:
    assert ask(disk(read_only=1), OUT, 0, 512)[0] == ChainWrite(7, 0, bytes((IOERR,)))


def test_no_sectors_are_done_at_once() -> None:
    assert ask(disk(), IN, 0, 0) == answer(OK, 0, 1)


def test_flush_is_answered_when_the_medium_has_it() -> None:
    model = disk()

    assert ask(model, FLUSH, 0, 0) == [Flush(7, 0)]
    model.complete(0, 7, DONE)
    assert model.take_effects() == answer(OK, 0, 1)
    ask(model, FLUSH, 0, 0, handle=8)
    model.complete(0, 8, FAILED)
    assert model.take_effects() == answer(IOERR, 0, 1, 8)


@pytest.mark.parametrize(("size", "written"), [(20, 21), (8, 9), (64, 20)])
def test_serial_number_is_told_as_far_as_there_is_room(size: int, written: int) -> None:
    assert ask(disk(), GET_ID, 0, size) == [
        ChainWrite(7, 0, b"KB-1".ljust(20, b"\0")[:size]),
        *answer(OK, size, written),
    ]


@pytest.mark.parametrize("kind", [2, 3, 5, 11, 13, 14, 0xFFFF_FFFF])
def test_other_requests_are_unsupported(kind: int) -> None:
    assert ask(disk(), kind, 0, 512)[0] == ChainWrite(7, 512, bytes((UNSUPP,)))


def test_chain_that_is_no_request_needs_a_reset() -> None:
    for chain in (Chain(7, 15, 1, bytes(15)), Chain(7, 16, 0, bytes(16)), Chain(7, 0, 513, b"")):
        model = disk()
        model.chains(0, 0, [chain, Chain(8, 16, 1, bytes(16))], DONE)

        assert model.read(0, mmio.STATUS, 4) & mmio.NEEDS_RESET
        assert not any(isinstance(effect, ChainUsed) for effect in model.take_effects())


def test_answer_from_before_a_reset_is_nobodys() -> None:
    model = disk()
    ask(model, IN, 0, 2 * PIECE)
    model.reset(0)

    model.complete(0, 7, DONE)
    assert model.take_effects() == []


def test_snapshot_is_restored_in_the_middle_of_pieces() -> None:
    model, copy = disk(), VirtioBlk(sectors=SECTORS)
    ask(model, IN, 8, 2 * PIECE)
    model.complete(0, 7, DONE)
    model.take_effects()

    copy.restore(model.snapshot())
    copy.complete(0, 7, DONE)
    assert copy.take_effects() == answer(OK, 2 * PIECE, 2 * PIECE + 1)


@pytest.mark.parametrize(
    "request_fields",
    [
        (7, 3, 0, 512, 0, 512),
        (7, IN, 1, 512, 0, 512),
        (7, IN, 0, 511, 0, 512),
        (7, IN, 0, 512, 513, 512),
        (7, IN, SECTORS * 512, 512, 0, 512),
    ],
)
def test_request_that_cannot_be_is_refused_in_a_snapshot(request_fields: tuple[int, ...]) -> None:
    model = disk()
    ask(model, FLUSH, 0, 0)
    state = model.snapshot()
    size = struct.calcsize("<IIQIII")

    with pytest.raises(SnapshotError):
        model.restore(state[:-size] + struct.pack("<IIQIII", *request_fields))
    assert model.snapshot() == state
