"""The frame buffer in guest memory: there once it is used, and a piece of it in two places."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import KvmboxError
from kvmbox.base.memory import GuestMemory, MemoryRegion
from kvmbox.contract.bulk_data import FrameBuffer
from kvmbox.host import frame_buffer
from kvmbox.host.frame_buffer import show, show_window

FIRST = layout.FRAME_BUFFER
WINDOW = layout.VGA_MEMORY
BANK = layout.VIDEO_WINDOW_SIZE


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    memory = GuestMemory(layout.MIB)
    yield memory
    memory.close()


def test_frame_buffer_is_there_once_it_is_used_and_the_guest_is_shown_it_once(memory: GuestMemory) -> None:
    shown: list[tuple[int, int]] = []
    memory.show_video = lambda regions: shown.extend((one.start, one.size) for one in regions)
    assert not memory.contains(FIRST, 1)
    show(memory, FrameBuffer(0, 0, 0))
    show(memory, FrameBuffer(3, 1, 0))
    assert shown == [(0xE0000000, 16 << 20)]
    assert memory.contains(FIRST, layout.FRAME_BUFFER_SIZE)
    assert not memory.contains(FIRST - 1, 2)
    assert memory.available(FIRST + layout.FRAME_BUFFER_SIZE - 2, 9) == bytes(2)
    assert memory.byte_at(FIRST) == 0


@pytest.mark.parametrize("bank", [0, 7, 255])
def test_piece_is_the_same_memory_in_both_places(memory: GuestMemory, bank: int) -> None:
    show(memory, FrameBuffer(bank, 1, 0))
    memory.write(FIRST + BANK * bank + 5, b"from below")
    memory.write(WINDOW + BANK - 2, b"up")
    assert memory.read(WINDOW + 5, 10) == b"from below"
    assert memory.read(FIRST + BANK * (bank + 1) - 2, 2) == b"up"


def test_window_leaves_its_surroundings_alone(memory: GuestMemory) -> None:
    memory.write(WINDOW - 1, b"<" + bytes(BANK) + b">")
    show(memory, FrameBuffer(1, 1, 0))
    memory.fill(WINDOW, BANK, 0xAA)
    assert (memory.byte_at(WINDOW - 1), memory.byte_at(WINDOW + BANK)) == (ord("<"), ord(">"))
    assert (memory.byte_at(FIRST + BANK - 1), memory.byte_at(FIRST + 2 * BANK)) == (0, 0)


def test_window_that_is_not_shown_is_ram_which_reads_as_zero(memory: GuestMemory) -> None:
    show(memory, FrameBuffer(2, 1, 0))
    memory.write(WINDOW, b"dots")
    show(memory, FrameBuffer(2, 0, 0))
    assert memory.read(WINDOW, 4) == bytes(4)
    memory.write(WINDOW, b"ram")
    assert memory.read(FIRST + 2 * BANK, 4) == b"dots"
    show_window(memory, 2)
    assert memory.read(WINDOW, 4) == b"dots"


@pytest.mark.parametrize("size", [0, 1, 4096, 5000, 1 << 20])
def test_clear_has_the_size_that_is_asked_for(memory: GuestMemory, size: int) -> None:
    show(memory, FrameBuffer(0, 1, 0))
    memory.fill(FIRST, 2 << 20, 0xFF)
    show(memory, FrameBuffer(0, 1, size))
    assert memory.read(FIRST, size) == bytes(size)
    assert memory.read(FIRST + size, 2) == b"\xff\xff"


def test_numbers_of_a_lying_process_are_brought_into_range(memory: GuestMemory) -> None:
    show(memory, FrameBuffer(0, 1, 0))
    memory.write(FIRST, b"gone")
    memory.write(WINDOW + BANK, b"kept")
    show(memory, FrameBuffer(255, 1, 0xFFFF_FFFF))
    assert memory.read(FIRST, 4) == bytes(4)
    assert memory.read(WINDOW + BANK, 4) == b"kept"
    show_window(memory, 256 + 1)
    memory.write(WINDOW, b"one")
    assert memory.read(FIRST + BANK, 3) == b"one"


def test_cleared_memory_has_no_dots(memory: GuestMemory) -> None:
    show(memory, FrameBuffer(0, 0, 0))
    memory.write(FIRST + 9, b"dots")
    memory.clear()
    assert memory.read(FIRST + 9, 4) == bytes(4)


def test_machine_without_memory_at_0xa0000_has_a_frame_buffer_and_no_window() -> None:
    memory = GuestMemory(layout.PAGE_SIZE)
    show(memory, FrameBuffer(1, 1, 9))
    assert memory.contains(FIRST, layout.FRAME_BUFFER_SIZE)
    assert memory.read(0, layout.PAGE_SIZE) == bytes(layout.PAGE_SIZE)
    memory.close()


class FullHost(mmap.mmap):
    """A mapping whose advice the host refuses."""

    def madvise(self, *_arguments: int) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def no_mapping(*_arguments: Any, **_options: Any) -> mmap.mmap:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.mark.parametrize("mapping", [FullHost, no_mapping])
def test_frame_buffer_that_the_host_refuses_is_an_error(
    memory: GuestMemory, monkeypatch: pytest.MonkeyPatch, mapping: Any
) -> None:
    monkeypatch.setattr(mmap, "mmap", mapping)
    with pytest.raises(KvmboxError, match="cannot make a frame buffer: Cannot allocate memory") as caught:
        show(memory, FrameBuffer(0, 1, 0))
    assert caught.value.hint
    assert memory.video == []


@pytest.mark.parametrize("shown", [0, 1])
def test_window_that_the_host_refuses_is_an_error(
    memory: GuestMemory, monkeypatch: pytest.MonkeyPatch, shown: int
) -> None:
    show(memory, FrameBuffer(0, 1, 0))

    def refuses(*_arguments: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(frame_buffer, "withhold", refuses)
    with pytest.raises(KvmboxError, match="at 0xa0000: Cannot allocate memory") as caught:
        show(memory, FrameBuffer(0, shown, 0))
    assert caught.value.hint


def test_clear_that_the_host_refuses_is_an_error(memory: GuestMemory) -> None:
    show(memory, FrameBuffer(0, 0, 0))
    region = memory.video[0]
    memory.video[0] = MemoryRegion(region.start, region.size, FullHost(-1, 4096), region.host_address)
    with pytest.raises(KvmboxError, match="cannot clear the frame buffer: Cannot allocate memory"):
        show(memory, FrameBuffer(0, 0, 4096))
    memory.video[0] = region
