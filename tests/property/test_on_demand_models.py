"""The devices that may start when they are used: none of them does before that what anybody could see.

A process that starts at the first use gets HELLO and the last RESET. It must answer whatever follows as one
that was there from the start, and was told of every reset and of all time in between.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvmbox import layout
from kvmbox.board import SERIAL_PORTS, BoardOptions, BootDrive, DeviceSpec, by_type
from kvmbox.board_extras import whole_board
from kvmbox.firmware.fw_cfg import FwCfgItem
from kvmbox.jail.server import DeviceServer
from kvmbox.remote.greeting import hello_of
from kvmbox.remote.on_demand import answer
from kvmbox.wire import protocol
from kvmbox.wire.protocol import Request

LAST_TIME = 1 << 50
"""13 days of guest time."""


def on_demand() -> dict[str, list[DeviceSpec]]:
    options = BoardOptions(
        *(SERIAL_PORTS, 1_700_000_000, 128 * layout.MIB),
        testdev=True,
        fw_cfg=(FwCfgItem(bytes(range(256)) * 20, "opt/large"),),
        has_bios=True,
        boot_drives=(BootDrive("disk", 8),),
    )
    types = by_type(whole_board(options))
    return {name: devices for name, devices in types.items() if all(each.on_demand for each in devices)}


TYPES = on_demand()


def test_those_that_a_guest_may_never_use_start_on_demand_and_no_type_is_divided() -> None:
    assert sorted(TYPES) == ["bdisk", "fwcfg", "hpet", "i8042", "pm", "rtc", "testdev", "vga"]
    board = whole_board(
        BoardOptions((), 0, layout.MIB, testdev=True, has_bios=True, boot_drives=(BootDrive("disk", 1),))
    )
    for devices in by_type(board).values():
        assert len({device.on_demand for device in devices}) == 1


@st.composite
def uses(draw: st.DrawFn, devices: list[DeviceSpec]) -> tuple[int, int, int, int, int]:
    """Kind, device, size, offset and value of an access that the bus can make."""
    index = draw(st.integers(0, len(devices) - 1))
    device = devices[index]
    place = draw(st.sampled_from((*device.ports, *device.mmio)))
    size = draw(st.sampled_from(sorted({1, *device.natural_sizes})))
    offset = place.offset + draw(st.integers(0, place.count - 1))
    kind = draw(st.sampled_from((protocol.READ, protocol.WRITE)))
    value = draw(st.integers(0, (1 << 8 * size) - 1)) if kind == protocol.WRITE else 0
    return kind, index, size, offset, value


@given(data=st.data(), name=st.sampled_from(sorted(TYPES)))
def test_device_that_starts_at_its_first_use_is_as_one_that_was_always_there(
    data: st.DataObject, name: str
) -> None:
    devices = TYPES[name]
    early, late = DeviceServer(), DeviceServer()
    times = sorted(data.draw(st.lists(st.integers(0, LAST_TIME), min_size=8, max_size=8)))
    kinds = data.draw(st.lists(st.sampled_from((protocol.RESET, protocol.ADVANCE)), max_size=4))
    hello = [request.encode() for request in hello_of(devices)]
    before = [Request(kind, 0, 0, 9, times.pop(0)).encode() for kind in kinds]
    for frame in hello + before:
        assert early.handle(frame) == answer(frame)
    resets = [frame for frame in before if frame[0] == protocol.RESET]
    for frame in hello + resets[-1:]:
        assert late.handle(frame) == answer(frame)
    for now in times:
        kind, index, size, offset, value = data.draw(uses(devices))
        frame = Request(kind, index, size, 10, now, value, offset).encode()
        assert late.handle(frame) == early.handle(frame)
    told = Request(protocol.ADVANCE, 0, 0, 11, times[-1]).encode()  # a device that was not used knows no time
    assert late.handle(told) == early.handle(told)
    end = Request(protocol.SNAPSHOT, data.draw(st.integers(0, len(devices) - 1))).encode()
    assert late.handle(end) == early.handle(end)
