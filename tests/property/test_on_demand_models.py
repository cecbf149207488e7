"""The devices that may start when they are used: none of them does before that what anybody could see.

A process that starts at the first use gets HELLO, the last RESET, and the last ADVANCE behind it. It must
answer whatever follows as one that was there from the start, and was told of every reset and of all time in
between. What was answered for it meanwhile must be what that one answers.
"""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvmbox.base import layout
from kvmbox.contract.device_spec import DeviceSpec, by_type
from kvmbox.contract.model import NO_RISE
from kvmbox.contract.names import SERIAL_PORTS
from kvmbox.contract.stop_values import SHUTDOWN
from kvmbox.devices.bios.board import BootDrive
from kvmbox.devices.pc_board import BoardOptions, whole_board
from kvmbox.firmware.fw_cfg import FwCfgItem
from kvmbox.jail.server import DeviceServer
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.hello import greet, hello_of
from kvmbox.remote.channel.model_state import take_state
from kvmbox.remote.channel.on_demand import NoProcess, Unused
from kvmbox.remote.process.late_starts import ProcessStarts
from kvmbox.remote.transport.direct import DirectLink
from kvmbox.remote.transport.interface import Opens
from kvmbox.wire import protocol
from kvmbox.wire.protocol import NO_DEADLINE, WORDS, Request

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
    assert sorted(TYPES) == ["bdisk", "debug", "fwcfg", "hpet", "i8042", "pit", "pm", "rtc", "testdev", "vga"]
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
    unused = Unused(devices)
    for frame in hello + before:
        assert early.handle(frame) == unused.answer(frame)
    while protocol.RESET in kinds[1:]:
        del kinds[0], before[0]
    unused = Unused(devices)
    for frame in (
        hello + before[: kinds[:1].count(protocol.RESET)] + before[kinds[:1].count(protocol.RESET) :][-1:]
    ):
        assert late.handle(frame) == unused.answer(frame)
    for now in times:
        kind, index, size, offset, value = data.draw(uses(devices))
        frame = Request(kind, index, size, 10, now, value, offset).encode()
        assert late.handle(frame) == early.handle(frame)
    told = Request(protocol.ADVANCE, 0, 0, 11, times[-1]).encode()  # a device that was not used knows no time
    assert late.handle(told) == early.handle(told)
    end = Request(protocol.SNAPSHOT, data.draw(st.integers(0, len(devices) - 1))).encode()
    assert late.handle(end) == early.handle(end)


PIT = TYPES["pit"]


FIRMWARE = PIT[0].runs.firmware if PIT[0].runs is not None else ()
STEP = st.tuples(
    st.sampled_from((protocol.ADVANCE, protocol.RESET, protocol.WRITE_RUN)), st.integers(0, 60_000_000)
)
"""Kind and time of what may come before the guest uses it."""


@given(steps=st.lists(STEP, min_size=1), exact=st.booleans())
def test_pin_that_runs_by_itself_is_as_the_model_has_it(steps: list[tuple[int, int]], exact: bool) -> None:
    """With `exact`, a request comes at a deadline, or right before it."""
    server, unused = DeviceServer(), Unused(PIT)
    (hello,) = hello_of(PIT)
    frame, now, written = hello.encode(), 0, 0
    for kind, later in steps:
        reply = server.handle(frame)
        assert unused.answer(frame) == reply
        deadline = WORDS.unpack_from(reply)[1]
        now = max(now, deadline - later % 2) if exact and deadline != NO_DEADLINE else now + later
        frame = Request(kind, 0, 0, 9, now).encode()
        if kind == protocol.WRITE_RUN:
            frame = Request(kind, 0, 0, 9, now, 0, *FIRMWARE[written % len(FIRMWARE)]).encode()
            if written == len(FIRMWARE):
                assert not unused.knows(frame)
                break
            assert unused.knows(frame)
            written += 1
        elif kind == protocol.RESET:
            written = 0
    else:
        assert unused.answer(frame) == server.handle(frame)


@pytest.mark.parametrize(
    "sent",
    [
        Request(protocol.WRITE_RUN, 1, 0, 9, 0, 0, *FIRMWARE[0]),
        Request(protocol.WRITE_RUN, 0, 0, 9, 0, 0, FIRMWARE[0][0] + 1, FIRMWARE[0][1]),
        Request(protocol.WRITE_RUN, 0, 0, 9, 0, 0, FIRMWARE[0][0], FIRMWARE[0][1] + b"\0"),
        Request(protocol.WRITE_RUN, 0, 0, 9, 0, 0, *FIRMWARE[1]),
        Request(protocol.WRITE_STRING, 0, 1, 9, 0, 0, *FIRMWARE[0]),
    ],
)
def test_answer_is_known_to_what_firmware_writes_and_to_nothing_else(sent: Request) -> None:
    assert not Unused(PIT).knows(sent.encode())


class Machine:
    """A channel to the PIT, and all that comes of it."""

    def __init__(self, link: Opens) -> None:
        self.time = self.written = 0
        self.seen: list[object] = []
        source = Announced(self.seen)
        self.channel = Channel(
            "pit",
            link,
            [Grants("PIT", irq_lines=[lambda *change: self.seen.append(change)], rises={0: source})],
            now=lambda: self.time,
            deadline_changed=lambda deadline, _now: self.seen.append(deadline),
        )
        if isinstance(link, NoProcess):
            link.attach(self.channel)
        greet(self.channel, PIT)

    def do(self, now: int, kind: int, offset: int, value: int) -> object:
        """Tell the time at each deadline until `now`, and then make one request."""
        while self.channel.deadline <= now:
            self.time = self.channel.deadline
            self.channel.request(protocol.ADVANCE)
        self.time = now
        if kind in ACCESSES:
            return self.channel.access(protocol.request_word(kind, 0, 1), offset, value, 0xFF)
        payload = b""
        if kind == protocol.WRITE_RUN:
            offset, payload = FIRMWARE[self.written % len(FIRMWARE)]
            self.written += 1
        return self.channel.request(kind, offset=offset, payload=payload)


class Announced:
    """Hears of announced rises."""

    slack = 0

    def __init__(self, seen: list[object]) -> None:
        self.at = NO_RISE
        self._seen = seen

    def announce(self, at: int) -> None:
        self.at = at
        self._seen.append(("announced", at))

    def guarded_by(self, lock: object) -> None:
        """Nobody else is there."""

    def raise_ahead(self) -> None:
        self._seen.append("ahead")

    def settle(self) -> None:
        """Nothing."""


ACCESSES = (protocol.READ, protocol.WRITE)
ACCESS = st.tuples(
    st.sampled_from((*ACCESSES, protocol.ADVANCE, protocol.RESET)),
    st.integers(0, 100_000_000),
    st.integers(0, 4),
    st.integers(0, 255),
)


@given(before=st.lists(STEP, max_size=6), after=st.lists(ACCESS))
def test_machine_whose_pit_starts_at_its_first_use_sees_what_any_machine_sees(
    before: list[tuple[int, int]], after: list[tuple[int, int, int, int]]
) -> None:
    late = Machine(NoProcess(ProcessStarts(lambda _name: DirectLink()), PIT))
    early = Machine(DirectLink())
    now = 0
    for kind, later, offset, value in [(*step, 0, 0) for step in before] + after:
        # Not beyond the next deadline, as there may be a million in a second.
        now = max(now, min(late.channel.deadline, now + later))
        assert late.do(now, kind, offset, value) == early.do(now, kind, offset, value)
        assert late.seen == early.seen
    if any(kind in ACCESSES for kind, *_ in after):
        assert late.channel.is_started


# --- Devices that stop the run --------------------------------------------------------------------------

DEBUG = TYPES["debug"]
PLACE = {device.name: index for index, device in enumerate(DEBUG)}


class Stopping:
    """A channel to the debug devices, and what they have stopped, reset and printed."""

    def __init__(self, link: Opens) -> None:
        self.time = 0
        self.seen: list[object] = []
        heard = [partial(self._hear, device.name) for device in DEBUG]
        grants = [
            Grants(device.name, output=hear, reset=hear, stop=hear)
            for device, hear in zip(DEBUG, heard, strict=True)
        ]
        self.channel = Channel("debug", link, grants, now=lambda: self.time)
        if isinstance(link, NoProcess):
            link.attach(self.channel)
        greet(self.channel, DEBUG)

    def _hear(self, *what: object) -> None:
        self.seen.append(what)

    def write(self, name: str, size: int, offset: int, value: int) -> None:
        self.channel.access(protocol.request_word(protocol.WRITE, PLACE[name], size), offset, value, 0)

    def state(self) -> list[bytes]:
        return [take_state(self.channel, index) for index in range(len(DEBUG))]


NAMES = ("debug-exit", "debug-exit-501", "shutdown", "shutdown", "debugcon", "POST")
WRITES = st.tuples(st.sampled_from(NAMES), st.sampled_from((1, 2, 4)), st.integers(0, 3), st.integers(0, 255))
LETTERS = st.integers(0, len(SHUTDOWN)).map(lambda count: spelt(SHUTDOWN[:count]))
TOLD = st.sampled_from((protocol.RESET, protocol.ADVANCE))


def spelt(letters: bytes, size: int = 1) -> list[tuple[str, int, int, int]]:
    return [("shutdown", size, 0, letter) for letter in letters]


@example(steps=[spelt(b"Shut"), protocol.RESET, spelt(b"down")])
@example(steps=[spelt(b"S", 2), spelt(b"hutdown")])
@given(steps=st.lists(st.one_of(LETTERS, WRITES.map(lambda write: [write]), TOLD), max_size=8))
def test_machine_sees_stops_and_all_else_as_if_the_process_had_always_been_there(
    steps: list[list[tuple[str, int, int, int]] | int],
) -> None:
    late = Stopping(NoProcess(ProcessStarts(lambda _name: DirectLink()), DEBUG))
    early = Stopping(DirectLink())
    for step in steps:
        for machine in (late, early):
            machine.time += 1
            if isinstance(step, int):
                machine.channel.request(step)
            else:
                for write in step:
                    machine.write(*write)
        assert late.seen == early.seen
    assert late.state() == early.state()


@given(
    told=st.lists(TOLD, max_size=4),
    write=st.sampled_from((("debug-exit", 1), ("debug-exit", 4), ("debug-exit-501", 2), ("shutdown", 1))),
)
def test_run_is_stopped_without_a_process_by_a_first_write_and_never_by_a_second(
    told: list[int], write: tuple[str, int]
) -> None:
    machine = Stopping(NoProcess(ProcessStarts(lambda _name: DirectLink()), DEBUG))
    for kind in told:
        machine.channel.request(kind)
    name, size = write
    values = SHUTDOWN if name == "shutdown" else b"\x05"
    for value in values:
        machine.write(name, size, 0, value)
    assert machine.seen == [(name, 0, size, values[-1])]
    assert not machine.channel.is_started
    machine.write(name, size, 0, values[0])  # what is remembered is bounded
    assert machine.channel.is_started
