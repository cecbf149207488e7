"""Effects of a VGA's window: what is granted, and the requests that bring its bytes."""

from __future__ import annotations

import pytest

from kvmbox.base import layout
from kvmbox.contract import device_spec
from kvmbox.contract.bulk_data import Aperture
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.contract.model import MemoryRead
from kvmbox.remote.channel.effect_calls import MAX_FOLLOW_UPS
from kvmbox.remote.channel.grants import bind
from kvmbox.remote.channel.vga_window import MOST_MOVED, allowed, count_of, pieces
from kvmbox.wire import protocol
from kvmbox.wire.protocol import Request
from tests.support.noting_host import NotingHost

FIRST, SIZE = layout.VGA_MEMORY, layout.VGA_MEMORY_SIZE
END = FIRST + SIZE


@pytest.mark.parametrize(
    ("is_plain", "address", "size"),
    [
        (0, FIRST, MOST_MOVED),
        (0, END - MOST_MOVED, MOST_MOVED),
        (0, END, 0),
        (1, FIRST, SIZE),
    ],
)
def test_effect_within_the_window_is_allowed(is_plain: int, address: int, size: int) -> None:
    effect = Aperture(is_plain, address, size)
    assert allowed(effect) is effect


@pytest.mark.parametrize(
    ("is_plain", "address", "size"),
    [
        (0, FIRST - 1, 2),
        (0, END - 1, 2),
        (0, FIRST, MOST_MOVED + 1),
        (0, (1 << 64) - 1, FIRST + 2),
        (0, 0, 1),
        (1, FIRST, SIZE + 1),
    ],
)
def test_effect_beyond_the_window_is_refused(is_plain: int, address: int, size: int) -> None:
    assert allowed(Aperture(is_plain, address, size)) is None


def test_device_with_the_window_may_have_no_other_memory() -> None:
    device = DeviceSpec("VGA", "vga", "vga_text", grants=(device_spec.Aperture(),))
    asked = Request(protocol.WRITE, 1, 4).encode()
    grants = bind(device, NotingHost())
    assert grants.check(0, Aperture(0, FIRST, 64), asked) is not None
    assert grants.check(0, MemoryRead(0, [(FIRST, 64)]), asked) is None


@pytest.mark.parametrize("size", [0, 1, 4064, 4065, MOST_MOVED])
def test_pieces_are_all_of_the_bytes_and_no_more_requests_than_one_may_cause(size: int) -> None:
    data = bytes(number & 0xFF for number in range(size))
    sent = pieces(3, data)
    assert len(sent) == count_of(size) <= MAX_FOLLOW_UPS
    assert {(one.kind, one.device) for one in sent} <= {(protocol.MEMORY, 3)}
    assert b"".join(one.payload for one in sent) == data
    assert [one.value for one in sent] == list(range(0, size, 4064))
