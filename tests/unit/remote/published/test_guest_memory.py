"""What devices may do with guest memory, and with resources of the host: the check, and what is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import pytest

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.device_spec import Content, DeviceSpec, LateWrites, Medium, Memory, Queues, Resource
from kvmbox.contract.model import (
    BAD_ADDRESS,
    BUSY,
    DONE,
    ContentRead,
    Effect,
    MemoryRead,
    MemoryWrite,
    Transfer,
)
from kvmbox.remote.bus.machine_buses import Buses
from kvmbox.remote.channel.effect_calls import FollowUp
from kvmbox.remote.channel.grants import Grants, bind
from kvmbox.remote.published.data_window import DataWindow
from kvmbox.remote.published.guest_memory import Submit
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.remote.published.queues import DeviceQueues
from kvmbox.wire import protocol
from kvmbox.wire.protocol import MAX_PAYLOAD, Request

SIZE: Final = 2 * layout.PAGE_SIZE
READ: Final = Request(protocol.READ, 1, 4).encode()
TOP: Final = 1 << 64


class Host:
    """Guest memory of two pages, and a queue that may be full."""

    def __init__(self) -> None:
        self.ram = GuestMemory(SIZE)
        self.ram.write(0, bytes(range(256)) * (SIZE // 256))
        self.orders: list[tuple[object, ...]] = []
        self.is_full = False

    def transfers(self, device: str, grant: Resource) -> Submit:
        def submit(tag: int, offset: int, ranges: Sequence[tuple[int, int]], to_guest: bool) -> bool:
            self.orders.append((device, grant.name, tag, offset, list(ranges), to_guest))
            return not self.is_full

        return submit

    def medium(self, device: str, grant: Medium) -> MediumAccess:
        raise AssertionError(device, grant)

    def window(self, register: int) -> DataWindow:
        raise AssertionError(register)

    def queues(self, device: str, grant: Queues) -> DeviceQueues:
        raise AssertionError(device, grant)

    def aperture(self, index: int, effect: Effect) -> None:
        raise AssertionError(index, effect)

    def irq_source(self, gsi: int) -> Callable[[int, int], None]:
        raise AssertionError(gsi)

    def replacing_irq_source(self, gsi: int) -> tuple[Callable[[int, int], None], Callable[[int], None]]:
        raise AssertionError(gsi)

    def rise_of(self, line: Callable[[int, int], None]) -> None:
        raise AssertionError(line)

    def output(self, stream: str) -> Callable[[bytes], None]:
        raise AssertionError(stream)

    def input_room(self, stream: str) -> Callable[[int], None]:
        raise AssertionError(stream)

    def ask_for_reset(self) -> None:
        raise AssertionError

    @property
    def buses(self) -> Buses:
        raise AssertionError("nothing here is on PCI")

    def late_writes(self, device: DeviceSpec, grant: LateWrites) -> Callable[[int], None]:
        raise AssertionError(device, grant)

    def bios_reports(self) -> tuple[Callable[[bytes], None], Callable[[int, int, int], None]]:
        raise AssertionError

    def stop(self, value: int | None) -> None:
        raise AssertionError(value)

    def suspend(self, device: str, wakes: int) -> None:
        raise AssertionError(device, wakes)

    def panic(self, *, crash_kernel: bool) -> None:
        raise AssertionError(crash_kernel)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def grants(host: Host) -> Grants:
    device = DeviceSpec(
        "X",
        "x",
        "x",
        grants=(
            Memory(max_bytes=64, max_ranges=3),
            Resource("disk", 1024, writable=True, max_bytes=128, max_ranges=2),
            Resource("rom", 1024),
        ),
    )
    return bind(device, host)


def do(grants: Grants, effect: Effect) -> list[FollowUp]:
    """Apply an effect that is granted; returns the requests that it asks for."""
    application = grants.check(1, effect, READ)
    assert application is not None
    apply, arguments, most = application
    asked: list[FollowUp] = apply(*arguments)
    assert len(asked) <= most
    return asked


def test_memory_that_was_asked_for_comes_back_joined_in_order(grants: Grants) -> None:
    asked = do(grants, MemoryRead(7, [(16, 4), (8, 2), (17, 2)]))
    assert asked == [FollowUp(protocol.MEMORY, 1, 7, 0, bytes([16, 17, 18, 19, 8, 9, 17, 18]))]


@pytest.mark.parametrize(
    "ranges",
    [
        [(SIZE, 1)],
        [(SIZE - 1, 2)],
        [(0, 4), (SIZE, 1)],
        [(TOP - 1, 1)],
        [(TOP - 1, 2)],
        [(TOP - 4, 8)],
    ],
)
def test_memory_read_of_what_is_not_ram_brings_a_status_and_no_byte(
    grants: Grants, ranges: list[tuple[int, int]]
) -> None:
    assert do(grants, MemoryRead(7, ranges)) == [FollowUp(protocol.MEMORY, 1, 7 | BAD_ADDRESS << 32)]


def test_range_of_no_bytes_is_good_wherever_it_is(grants: Grants) -> None:
    assert do(grants, MemoryRead(7, [(TOP - 1, 0), (3, 1)])) == [FollowUp(protocol.MEMORY, 1, 7, 0, b"\x03")]
    assert do(grants, MemoryWrite(TOP - 1, b"", 9)) == [FollowUp(protocol.COMPLETE, 1, 9)]


def test_memory_write_with_a_tag_is_told_of(host: Host, grants: Grants) -> None:
    assert do(grants, MemoryWrite(100, b"abc", 9)) == [FollowUp(protocol.COMPLETE, 1, 9 | DONE << 32)]
    assert host.ram.read(99, 5) == b"\x63abc\x67"


@pytest.mark.parametrize("address", [SIZE - 1, SIZE, TOP - 1])
def test_memory_write_to_what_is_not_ram_changes_nothing(host: Host, grants: Grants, address: int) -> None:
    before = host.ram.read(0, SIZE)
    told = [FollowUp(protocol.COMPLETE, 1, 9 | BAD_ADDRESS << 32)]
    assert do(grants, MemoryWrite(address, b"ab", 9)) == told
    assert do(grants, MemoryWrite(address, b"ab")) == []
    assert host.ram.read(0, SIZE) == before


@pytest.mark.parametrize(
    "effect",
    [
        MemoryRead(1, [(0, 65)]),
        MemoryRead(1, [(0, 33), (0, 32)]),
        MemoryRead(1, [(0, 1)] * 4),
        MemoryRead(1, [(SIZE, 0xFFFF_FFFF)]),
        MemoryWrite(0, bytes(65)),
        Transfer(1, 0, 0, [(0, 129)], 1),
        Transfer(1, 0, 0, [(0, 1)] * 3, 1),
        Transfer(1, 2, 0, [(0, 1)], 1),
        Transfer(1, TOP - 1, 0, [(0, 1)], 1),
        Transfer(1, 1, 0, [(0, 1)], 0),
    ],
    ids=[
        *("bytes", "bytes of two", "ranges", "bytes that are no memory", "bytes written"),
        *("bytes moved", "ranges moved", "no such resource", "nor that", "to what is read only"),
    ],
)
def test_effect_beyond_the_grant_is_refused(host: Host, grants: Grants, effect: Effect) -> None:
    assert grants.check(1, effect, READ) is None
    assert host.orders == []


@pytest.mark.parametrize(
    "effect", [MemoryRead(1, []), MemoryWrite(0, b""), Transfer(1, 0, 0, [], 1), ContentRead(1, 0, 0, 0)]
)
def test_effect_without_any_grant_is_refused(host: Host, effect: Effect) -> None:
    assert bind(DeviceSpec("X", "x", "x"), host).check(1, effect, READ) is None


def test_transfer_is_handed_on_and_told_of_later(host: Host, grants: Grants) -> None:
    assert do(grants, Transfer(5, 1, 512, [(0, 4), (8, 4)], 1)) == []
    assert do(grants, Transfer(6, 0, 3, [(0, 4)], 0)) == []
    assert host.orders == [("X", "rom", 5, 512, [(0, 4), (8, 4)], True), ("X", "disk", 6, 3, [(0, 4)], False)]


def test_transfer_that_has_no_room_is_told_of_at_once(host: Host, grants: Grants) -> None:
    host.is_full = True
    assert do(grants, Transfer(5, 0, 0, [(0, 4)], 1)) == [FollowUp(protocol.COMPLETE, 1, 5 | BUSY << 32)]


def test_grant_of_more_than_a_frame_brings_is_a_board_that_is_wrong(host: Host) -> None:
    most = DeviceSpec("X", "x", "x", grants=(Memory(max_bytes=MAX_PAYLOAD),))
    assert bind(most, host).memory is not None
    with pytest.raises(ValueError, match="device X: 4065 bytes of memory at a time"):
        bind(DeviceSpec("X", "x", "x", grants=(Memory(max_bytes=MAX_PAYLOAD + 1),)), host)


# --- Content: what the VMM holds ---------------------------------------------------------------------------


@pytest.fixture
def content(host: Host) -> Grants:
    parts = (b"abc", b"", b"defgh", b"ij")
    return bind(DeviceSpec("X", "x", "x", grants=(Content(parts, max_bytes=64, max_ranges=2),)), host)


@pytest.mark.parametrize(
    ("offset", "size", "told"),
    [
        (0, 10, b"abcdefghij"),
        (2, 3, b"cde"),
        (3, 5, b"defgh"),
        (8, 1, b"i"),
        (7, 5, b"hij\0\0"),
        (10, 3, bytes(3)),
        (TOP - 1, 3, bytes(3)),
        (4, 0, b""),
    ],
)
def test_content_is_its_parts_and_zeros_behind_them(
    host: Host, content: Grants, offset: int, size: int, told: bytes
) -> None:
    assert do(content, ContentRead(5, 0, offset, size)) == [FollowUp(protocol.MEMORY, 1, 5, 0, told)]
    assert do(content, Transfer(6, 0, offset, [(100, size)], 1)) == [FollowUp(protocol.COMPLETE, 1, 6)]
    assert host.ram.read(100, size) == told


def test_content_goes_to_several_ranges_in_order(host: Host, content: Grants) -> None:
    assert do(content, Transfer(6, 0, 1, [(0, 4), (50, 3)], 1)) == [FollowUp(protocol.COMPLETE, 1, 6)]
    assert (host.ram.read(0, 4), host.ram.read(50, 3)) == (b"bcde", b"fgh")


def test_content_to_what_is_not_ram_is_told_and_nothing_is_written(host: Host, content: Grants) -> None:
    before = host.ram.read(0, SIZE)
    told = [FollowUp(protocol.COMPLETE, 1, 6 | BAD_ADDRESS << 32)]
    assert do(content, Transfer(6, 0, 0, [(0, 4), (SIZE - 1, 2)], 1)) == told
    assert host.ram.read(0, SIZE) == before


def test_content_of_many_megabytes_of_zeros_is_written_in_pieces(host: Host) -> None:
    grants = bind(DeviceSpec("X", "x", "x", grants=(Content((b"x",)),)), host)
    host.ram.write(0, b"\xff" * SIZE)
    do(grants, Transfer(6, 0, 0, [(0, SIZE)], 1))
    assert host.ram.read(0, SIZE) == b"x" + bytes(SIZE - 1)


@pytest.mark.parametrize(
    "effect",
    [
        Transfer(1, 0, 0, [(0, 65)], 1),
        Transfer(1, 0, 0, [(0, 1)] * 3, 1),
        Transfer(1, 0, 0, [(0, 1)], 0),
        Transfer(1, 1, 0, [(0, 1)], 1),
        ContentRead(1, 0, 0, MAX_PAYLOAD + 1),
        ContentRead(1, 1, 0, 1),
    ],
    ids=["bytes", "ranges", "writing", "no such resource", "more than a frame", "nor that"],
)
def test_effect_beyond_the_content_grant_is_refused(content: Grants, effect: Effect) -> None:
    assert content.check(1, effect, READ) is None


def test_resource_is_not_read_like_content(grants: Grants) -> None:
    assert grants.check(1, ContentRead(1, 0, 0, 1), READ) is None  # a file may make its reader wait
