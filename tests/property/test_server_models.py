"""Every model behind the device server: whatever a guest and a host do, no exception, and replies that pass.

Each reply goes through the channel's own checks, with exactly the grants that the board gives the device.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.catalog import MODELS
from kvmbox.contract.device_spec import DeviceSpec, Input, LateWrites, Medium, Queues, Resource, Suspend
from kvmbox.contract.model import Effect
from kvmbox.contract.names import BOOT_DISK, SERIAL_PORTS
from kvmbox.devices.bios.board import BootDrive
from kvmbox.devices.pc_board import BoardOptions, whole_board
from kvmbox.devices.qcow2.board import disk_map
from kvmbox.devices.rtc.registers import CENTURY, DATE_OF_MONTH, MONTH, YEAR
from kvmbox.devices.virtio.board import place_virtio, virtio_blk, virtio_console, virtio_net, virtio_rng
from kvmbox.firmware.fw_cfg import FwCfgItem
from kvmbox.host.disk.transfers import BytesStore
from kvmbox.jail.server import DeviceServer
from kvmbox.remote.bus.machine_buses import Buses
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.effect_calls import Application
from kvmbox.remote.channel.grants import bind
from kvmbox.remote.channel.hello import hello_of
from kvmbox.remote.published.data_window import DataWindow
from kvmbox.remote.published.guest_memory import Submit
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.remote.published.queue_kinds import queues_of
from kvmbox.remote.published.queues import DeviceQueues
from kvmbox.remote.transport.direct import DirectTransport
from kvmbox.remote.transport.interface import Waits, Words
from kvmbox.wire import protocol
from kvmbox.wire.protocol import HEADER, MAX_FRAME, MAX_PAYLOAD, NO_DEADLINE, WORDS, request_word

SECOND = 1_000_000_000
MAX_SNAPSHOT = 1 << 20
LAST_TIME = 1 << 62
"""146 years of guest time."""


def board(*, pace: bool, rtc_base: int = 1_700_000_000) -> dict[str, list[DeviceSpec]]:
    options = BoardOptions(
        *(SERIAL_PORTS, rtc_base, 128 * layout.MIB),
        uart_pace=pace,
        testdev=True,
        has_bios=True,
        boot_drives=(BootDrive(BOOT_DISK, 64),),
        fw_cfg=(FwCfgItem(bytes(range(256)) * 20, "opt/large"),),
    )
    disk = Medium("disk", 64 * layout.SECTOR_SIZE, writable=True)
    virtio = place_virtio([virtio_blk(0, disk), virtio_rng(), virtio_console(), virtio_net(0, bytes(6))])
    by_type: dict[str, list[DeviceSpec]] = {}
    for device in (*whole_board(options), *virtio):
        by_type.setdefault(device.device_type, []).append(device)
    return by_type


TYPES = sorted(board(pace=False))


class Served(DirectTransport):
    """Calls a server, whose models may not raise, and whose replies fit in a frame."""

    def exchange_words(self, first: int, now: int, value: int, offset_and_length: int) -> Words:
        words = first, now, value, offset_and_length
        reply, deadline, result, steady, self._payload = self.server.answer(words, lambda w: WORDS.pack(*w))
        assert HEADER.size + len(self._payload) <= MAX_FRAME
        return reply, deadline, result, len(self._payload) << 32 | steady

    def exchange(self, sent: bytes, slices: int | None) -> bytes:
        reply = self.server.handle(sent)
        assert len(reply) <= MAX_FRAME
        return reply


class ServedLink:
    """Leads to `server`."""

    def __init__(self, server: DeviceServer) -> None:
        self._server = server

    def open(self, device_type: str, waits: Waits) -> Served:
        return Served(self._server)


class Process:
    """A device process without the process: a server, asked through a real channel."""

    def __init__(self, devices: list[DeviceSpec], record: Callable[[bytes], None] | None = None) -> None:
        """`record` hears of each reply."""
        self.server = DeviceServer()
        self.devices = devices
        self.now = 0
        self.stops = 0
        self.lines: dict[int, int] = {}
        self.ram = GuestMemory(layout.PAGE_SIZE)
        self.ram.write(0, struct.pack(">IIQ", 0x0020_000A, 6000, 16))  # a read by DMA, which fails in the end
        self.ram.write(0xFF0, struct.pack(">IIQ", 0x0019_000A, 100, 0x100))
        self.channel = Channel(
            devices[0].device_type,
            ServedLink(self.server),
            [bind(d, self) for d in devices],
            now=lambda: self.now,
            record=(lambda _sent, frame: record(frame)) if record is not None else None,
        )
        for hello in hello_of(devices):
            self.ask(
                hello.kind,
                value=hello.value,
                offset=hello.offset,
                payload=hello.payload,
                limit=protocol.VERSION,
            )

    # What `bind` asks of a host.

    def aperture(self, _index: int, _effect: Effect) -> Application | None:
        """Nobody takes the window out of memory."""
        return (lambda: None), (), 0

    def irq_source(self, gsi: int) -> Callable[[int, int], None]:
        """A line remembers its level."""

        def change(level: int, coalesced: int) -> None:
            assert coalesced >= 0
            self.lines[gsi] = level

        return change

    def replacing_irq_source(self, gsi: int) -> tuple[Callable[[int, int], None], Callable[[int], None]]:
        """It may be taken, whoever else drives it."""
        return self.irq_source(gsi), lambda _taken: None

    def rise_of(self, _line: Callable[[int, int], None]) -> None:
        """Announcements are not heard."""

    def bios_reports(self) -> tuple[Callable[[bytes], None], Callable[[int, int, int], None]]:
        """Nobody looks."""
        return (lambda _data: None), (lambda _offset, _size, _value: None)

    def output(self, _stream: str) -> Callable[[bytes], None]:
        """Nobody looks."""
        return lambda _data: None

    def input_room(self, _stream: str) -> Callable[[int], None]:
        """Nobody looks."""
        return lambda _count: None

    def ask_for_reset(self) -> None:
        """Nobody minds."""

    @property
    def buses(self) -> Buses:
        raise AssertionError("nothing here is on PCI")

    def late_writes(self, _device: DeviceSpec, _grant: LateWrites) -> Callable[[int], None]:
        """Nobody looks."""
        return lambda _allowed: None

    def transfers(self, _device: str, grant: Resource) -> Submit:
        """Nobody moves anything: a transfer stays open, as with a slow disk."""
        assert grant.name == BOOT_DISK
        return lambda *_order: True

    def medium(self, device: str, grant: Medium) -> MediumAccess:
        """All zeros, at once."""
        del device
        return MediumAccess(grant, BytesStore(bytes(64 * layout.SECTOR_SIZE)), lambda *_errand: True)

    def window(self, register: int) -> DataWindow:
        """No device of this board has one."""
        raise AssertionError(register)

    def queues(self, device: str, grant: Queues) -> DeviceQueues:
        """They are in the one page of memory."""
        del device
        return queues_of(grant, self.ram, lambda _settle: True)

    def stop(self, value: int | None) -> None:
        """Counted."""
        self.stops += 1

    def suspend(self, _device: str, _wakes: int) -> None:
        """Nobody minds."""

    def panic(self, *, crash_kernel: bool) -> None:
        """Counted, too."""
        self.stops += 1

    def ask(self, kind: int, *, device: int = 0, value: int = 0, offset: int = 0, payload: bytes = b"",
            limit: int = 0) -> tuple[int, bytes]:  # fmt: skip
        """A request of the main thread."""
        return self.channel.request(
            kind, device=device, value=value, offset=offset, payload=payload, limit=limit
        )

    def access(self, kind: int, device: int, offset: int, size: int, value: int) -> int:
        """An access of the vCPU thread."""
        limit = (1 << 8 * size) - 1 if kind == protocol.READ else 0
        return self.channel.access(request_word(kind, device, size), offset, value, limit)

    def snapshot(self, device: int) -> bytes:
        total, state = self.ask(protocol.SNAPSHOT, device=device, limit=MAX_SNAPSHOT)
        number = 1
        while len(state) < total:
            again, part = self.ask(protocol.SNAPSHOT, device=device, offset=number, limit=MAX_SNAPSHOT)
            assert again == total
            assert part
            state += part
            number += 1
        return state

    def restore(self, device: int, state: bytes) -> bool:
        good = 0
        for number in range(max(1, -(-len(state) // MAX_PAYLOAD))):
            part = state[number * MAX_PAYLOAD : (number + 1) * MAX_PAYLOAD]
            good, _ = self.ask(
                protocol.RESTORE, device=device, value=len(state), offset=number, payload=part, limit=1
            )
        return bool(good)

    def close(self) -> None:
        self.channel.close()


# A register's interesting values are few: bits, limits, BCD, divisors.
VALUES = st.one_of(
    st.integers(0, 0xFF), st.sampled_from([0, 1, 0x10, 0x34, 0x80, 0xB6, 0xFF]), st.integers(0, 2**64 - 1)
)
OFFSETS = st.one_of(st.integers(0, 7), st.integers(0, 7), st.sampled_from([8, 9, 255, 2**32 - 1]))
JUMPS = st.one_of(
    st.integers(0, 2_000),
    st.integers(0, 2 * SECOND),
    st.integers(-SECOND, 0),
    st.sampled_from([86_400 * SECOND, 100 * 365 * 86_400 * SECOND]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("access"),
            st.sampled_from([protocol.READ, protocol.WRITE, protocol.WRITE]),
            st.integers(0, 4),
            OFFSETS,
            st.sampled_from([1, 1, 1, 1, 2, 4, 8]),
            VALUES,
        ),
        st.tuples(st.just("pass"), JUMPS),
        st.tuples(st.just("deadline")),
        st.tuples(st.just("advance")),
        st.tuples(st.just("receive"), st.integers(0, 4), st.binary(max_size=70)),
        st.tuples(st.just("reset")),
        st.tuples(st.just("snapshot"), st.integers(0, 4)),
        st.tuples(
            st.just("restore"), st.integers(0, 4), st.one_of(st.binary(max_size=90), st.just(bytes(5000)))
        ),
        st.tuples(st.just("damage"), st.integers(0, 4), st.integers(0, 10_000), st.integers(0, 255)),
    ),
    min_size=5,
    max_size=60,
)


def play(process: Process, step: tuple[object, ...]) -> None:
    count = len(process.devices)
    match step:
        case ("access", int(kind), int(device), int(offset), int(size), int(value)):
            process.access(kind, device % count, offset, size, value & (1 << 8 * size) - 1)
        case ("pass", int(jump)):
            process.now = min(max(0, process.now + jump), LAST_TIME)  # also backwards: models clamp
        case ("deadline",):
            if process.channel.deadline != NO_DEADLINE:
                process.now = min(max(process.now, process.channel.deadline), LAST_TIME)
            process.ask(protocol.ADVANCE)
        case ("advance",):
            process.ask(protocol.ADVANCE)
        case ("receive", int(device), bytes(data)):
            accepted, _ = process.ask(protocol.RECEIVE, device=device % count, payload=data, limit=len(data))
            asked = process.devices[device % count]
            # The clock takes the time that a machine from a snapshot has missed.
            catches_up = asked.model == "rtc_mc146818" and len(data) == 8
            assert accepted == 0 or catches_up or bool(asked.granted(Input)) or bool(asked.granted(Suspend))
        case ("reset",):
            process.ask(protocol.RESET)
        case ("snapshot", int(device)):
            state = process.snapshot(device % count)
            assert process.restore(device % count, state)
            assert process.snapshot(device % count) == state
        case ("restore", int(device), bytes(state)):
            before = process.snapshot(device % count)
            if not process.restore(device % count, state):
                assert process.snapshot(device % count) == before
        case ("damage", int(device), int(position), int(value)):
            before = process.snapshot(device % count)
            damaged = bytearray(before)
            damaged[position % len(damaged)] = value
            if not process.restore(device % count, bytes(damaged)):
                assert process.snapshot(device % count) == before
        case _:
            raise AssertionError(step)


@pytest.mark.parametrize("pace", [False, True], ids=["at once", "paced"])
@pytest.mark.parametrize("device_type", TYPES)
@settings(max_examples=60)
@given(steps=STEPS)
def test_models_answer_whatever_is_asked(
    device_type: str, pace: bool, steps: list[tuple[object, ...]]
) -> None:
    process = Process(board(pace=pace)[device_type])
    try:
        for step in steps:
            play(process, step)
        # In the end: told the time, nothing is left to do before or at that time (the channel checks it).
        process.ask(protocol.ADVANCE)
        assert process.channel.failure is None
    finally:
        process.close()


@pytest.mark.parametrize("device_type", TYPES)
@settings(max_examples=40)
@given(steps=STEPS)
def test_same_requests_give_the_same_replies(device_type: str, steps: list[tuple[object, ...]]) -> None:
    """Guest time is a value: record, replay and crash recovery rest on this."""

    def trace() -> list[bytes]:
        replies: list[bytes] = []
        process = Process(board(pace=True)[device_type], replies.append)
        try:
            for step in steps:
                play(process, step)
        finally:
            process.close()
        return replies

    assert trace() == trace()


@pytest.mark.parametrize("device_type", TYPES)
@settings(max_examples=40)
@given(before=STEPS, after=STEPS)
def test_restored_process_goes_on_as_the_one_that_it_replaces(
    device_type: str, before: list[tuple[object, ...]], after: list[tuple[object, ...]]
) -> None:
    devices = board(pace=True)[device_type]
    replies: tuple[list[bytes], list[bytes]] = ([], [])
    one, other = (Process(devices, to.append) for to in replies)
    try:
        for step in before:
            play(one, step)
        # All models of a process are told the time together, as `restart` does before it takes snapshots.
        one.ask(protocol.ADVANCE)
        for index in range(len(devices)):
            assert other.restore(index, one.snapshot(index))
        other.now = one.now
        for to, process in zip(replies, (one, other), strict=True):
            to.clear()
            for step in after:
                play(process, step)
        # All but the sequence numbers.
        assert [frame[8:] for frame in replies[0]] == [frame[8:] for frame in replies[1]]
    finally:
        one.close()
        other.close()


@pytest.mark.parametrize("rtc_base", [-62_135_596_800, -1, 0, 2**31, 253_402_300_799])
def test_rtc_of_every_year_that_can_be_asked_for_answers(rtc_base: int) -> None:
    process = Process(board(pace=False, rtc_base=rtc_base)["rtc"])
    values = []
    for register in range(64):
        process.access(protocol.WRITE, 0, 0, 1, register)
        values.append(process.access(protocol.READ, 0, 1, 1, 0))
    process.close()
    expected = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=rtc_base)
    assert f"{values[CENTURY]:02x}{values[YEAR]:02x}" == f"{expected.year:04}"
    assert f"{values[MONTH]:02x}{values[DATE_OF_MONTH]:02x}" == f"{expected:%m%d}"


def test_every_model_of_the_catalogue_is_on_the_board() -> None:
    by_type = board(pace=False)
    # Without registers, so a guest cannot reach it.
    by_type["format"] = [disk_map("disk")]
    models = {device.model for devices in by_type.values() for device in devices}
    elsewhere = {name for name in MODELS if "pci" in name}  # they are there where a bus is, and a disk
    assert models == set(MODELS) - elsewhere - {"ide", "E1000"}
