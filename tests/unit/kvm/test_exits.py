"""Decoding kvm_run: by example, and for any bytes."""

from __future__ import annotations

import struct
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.kvm import exits, uapi
from kvmbox.kvm.exits import (
    DebugExit,
    Exit,
    FailEntryExit,
    HltExit,
    InternalErrorExit,
    IntrExit,
    IoExit,
    MalformedExit,
    MmioExit,
    MsrExit,
    ShutdownExit,
    SystemEventExit,
    UnknownExit,
    decode_exit,
    describe,
    exit_name,
)

MAPPING = 3 * 4096


def run_page(reason: int, union: bytes = b"", size: int = MAPPING) -> bytearray:
    """A vCPU mapping whose kvm_run holds `reason` and, in its union, `union`."""
    page = bytearray(size)
    page[8:12] = reason.to_bytes(4, "little")
    page[32 : 32 + len(union)] = union
    return page


def io_page(direction: int, size: int, port: int, count: int, offset: int) -> bytearray:
    return run_page(2, struct.pack("<BBHIQ", direction, size, port, count, offset))


def test_decode_io_out_gives_port_size_count_and_offset() -> None:
    assert decode_exit(io_page(1, 2, 0x3F8, 3, 0x1000)) == IoExit(True, 2, 0x3F8, 3, 0x1000)


def test_decode_io_in_is_a_read() -> None:
    assert decode_exit(io_page(0, 1, 0x60, 64, 0x1000)) == IoExit(False, 1, 0x60, 64, 0x1000)


def test_decode_io_ending_at_end_of_mapping_is_accepted() -> None:
    assert isinstance(decode_exit(io_page(1, 4, 1, 2, MAPPING - 8)), IoExit)


@pytest.mark.parametrize(
    ("direction", "size", "count", "offset"),
    [
        (1, 4, 2, MAPPING - 7),  # one byte behind the mapping
        (1, 1, 0xFFFFFFFF, 0x1000),
        (1, 1, 1, 0xFFFFFFFFFFFFFFFF),
        (1, 1, 1, 287),  # within kvm_run's own fields
        (1, 1, 0, 0x1000),
        (1, 3, 1, 0x1000),
        (1, 8, 1, 0x1000),
        (1, 0, 1, 0x1000),
        (2, 1, 1, 0x1000),
    ],
)
def test_decode_io_out_of_bounds_is_malformed(direction: int, size: int, count: int, offset: int) -> None:
    event = decode_exit(io_page(direction, size, 0x80, count, offset))

    assert isinstance(event, MalformedExit)
    assert describe(event).startswith("malformed KVM_EXIT_IO: ")


@pytest.mark.parametrize("length", [1, 2, 4, 8])
def test_decode_mmio_write_keeps_the_bytes_written(length: int) -> None:
    page = run_page(6, struct.pack("<Q8sIB", 0xD0000000, b"\x01\x02\x03\x04\x05\x06\x07\x08", length, 1))

    event = decode_exit(page)

    assert event == MmioExit(0xD0000000, length, True, bytes(range(1, length + 1)))


def test_decode_mmio_read_has_no_data() -> None:
    page = run_page(6, struct.pack("<Q8sIB", 0xFEE00000, b"\xff" * 8, 4, 0))

    assert decode_exit(page) == MmioExit(0xFEE00000, 4, False, b"")


@pytest.mark.parametrize("length", [0, 9, 0xFFFFFFFF])
def test_decode_mmio_of_absurd_length_is_malformed(length: int) -> None:
    assert isinstance(decode_exit(run_page(6, struct.pack("<Q8sIB", 0, bytes(8), length, 1))), MalformedExit)


def test_decode_emulation_error_gives_instruction_bytes() -> None:
    code = bytes.fromhex("f30fb8c3") + bytes(11)
    page = run_page(17, struct.pack("<IIQB15s", 1, 3, 1, 4, code))

    event = decode_exit(page)

    assert isinstance(event, InternalErrorExit)
    assert (event.suberror, event.instruction) == (1, bytes.fromhex("f30fb8c3"))
    assert "code bytes f3 0f b8 c3" in describe(event)


def test_decode_emulation_error_of_absurd_length_is_clamped() -> None:
    page = run_page(17, struct.pack("<IIQB15s", 1, 3, 1, 255, bytes(range(15))))

    event = decode_exit(page)

    assert isinstance(event, InternalErrorExit)
    assert event.instruction == bytes(range(15))


@pytest.mark.parametrize(("count", "flags"), [(3, 0), (2, 1), (0, 1)])
def test_decode_emulation_error_without_instruction_has_none(count: int, flags: int) -> None:
    page = run_page(17, struct.pack("<IIQB15s", 1, count, flags, 4, b"\x90" * 15))

    event = decode_exit(page)

    assert isinstance(event, InternalErrorExit)
    assert event.instruction == b""
    assert len(event.data) == count


def test_decode_other_internal_error_gives_data_words() -> None:
    page = run_page(17, struct.pack("<II2Q", 3, 2, 0xAB, 0xCD))

    event = decode_exit(page)

    assert event == InternalErrorExit(3, (0xAB, 0xCD))
    assert describe(event) == (
        "KVM internal error 3: an exit while an event was being delivered, data 0xab 0xcd"
    )


@pytest.mark.parametrize("reason", [17, 24])
@pytest.mark.parametrize("count", [17, 0xFFFFFFFF])
def test_decode_too_many_data_words_is_malformed(reason: int, count: int) -> None:
    assert isinstance(decode_exit(run_page(reason, struct.pack("<II", 2, count))), MalformedExit)


def test_decode_system_event_with_data() -> None:
    event = decode_exit(run_page(24, struct.pack("<IIQ", 2, 1, 7)))

    assert event == SystemEventExit(2, (7,))
    assert describe(event) == "system event 2: reset, data 0x7"


@pytest.mark.parametrize(
    ("page", "event", "words"),
    [
        (run_page(5), HltExit(), "the guest executed HLT"),
        (run_page(10), IntrExit(), "interrupted by a signal"),
        (run_page(8), ShutdownExit(), "triple fault"),
        (
            run_page(9, struct.pack("<QI", 0x80000021, 3)),
            FailEntryExit(0x80000021, 3),
            "the CPU refused to enter the guest: hardware reason 0x80000021 on host CPU 3",
        ),
        (
            run_page(4, struct.pack("<I4xQQQ", 1, 0x7C00, 0x4000, 0x400)),
            DebugExit(1, 0x7C00, 0x4000, 0x400),
            "debug exception 1 at 0x7c00, DR6 0x4000",
        ),
        (
            run_page(29, struct.pack("<B7xIIQ", 0, 2, 0x1A0, 5)),
            MsrExit(False, 0x1A0, 5, 2),
            "read of MSR 0x1a0",
        ),
        (
            run_page(30, struct.pack("<B7xIIQ", 0, 2, 0x1A0, 5)),
            MsrExit(True, 0x1A0, 5, 2),
            "write of 0x5 to MSR 0x1a0",
        ),
        (
            run_page(0, struct.pack("<4Q", 0x30, 0, 0, 0)),
            UnknownExit(0, (0x30, 0, 0, 0)),
            "KVM_EXIT_UNKNOWN, data 0x30 0x0 0x0 0x0",
        ),
    ],
)
def test_decode_and_describe_exit(page: bytearray, event: Exit, words: str) -> None:
    assert decode_exit(page) == event
    assert describe(event) == words


def test_describe_io_and_mmio_in_words() -> None:
    assert describe(IoExit(True, 1, 0x3F8, 1, 0x1000)) == "1-byte write to port 0x3f8"
    assert describe(IoExit(False, 2, 0x1F0, 256, 0x1000)) == "2-byte read of port 0x1f0, 256 times"
    assert describe(MmioExit(0xD0000000, 2, True, b"\x34\x12")) == (
        "2-byte write of 0x1234 at guest address 0xd0000000"
    )
    assert describe(MmioExit(0xD0000000, 4, False, b"")) == "4-byte read at guest address 0xd0000000"


def test_exit_names_cover_every_reason_of_the_header_that_x86_has() -> None:
    other_architectures = {13, 14, 15, *range(18, 24), 25, 28, 35, 36, 38}
    assert set(exits.EXIT_NAMES) == set(range(40)) - other_architectures
    assert exit_name(uapi.KVM_EXIT_MEMORY_FAULT) == "KVM_EXIT_MEMORY_FAULT"
    assert exit_name(77) == "exit reason 77"


def test_decode_copies_so_that_the_next_run_changes_nothing() -> None:
    page = run_page(6, struct.pack("<Q8sIB", 0x1000, b"ABCDEFGH", 8, 1))
    event = decode_exit(memoryview(page))

    page[:] = bytes(len(page))

    assert event == MmioExit(0x1000, 8, True, b"ABCDEFGH")


def test_decode_of_too_short_view_raises_value_error() -> None:
    with pytest.raises(ValueError, match="287 bytes are no kvm_run"):
        decode_exit(bytes(287))


@given(
    reason=st.integers(0, 50) | st.integers(0, 0xFFFFFFFF),
    union=st.binary(max_size=256),
    pages=st.integers(1, 3),
)
def test_decode_of_any_bytes_gives_a_bounded_exit_that_can_be_told(
    reason: int, union: bytes, pages: int
) -> None:
    page = run_page(reason, union, pages * 4096)

    event = decode_exit(memoryview(page))

    assert isinstance(event, get_args(Exit))
    assert "\n" not in describe(event)
    if isinstance(event, IoExit):
        assert event.count > 0
        assert event.data_offset + event.size * event.count <= len(page)
    if isinstance(event, MmioExit):
        assert len(event.data) == (event.length if event.is_write else 0)
