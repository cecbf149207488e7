"""Wide accesses and string instructions in one request each, against the same accesses one by one.

Programs of a guest run on two machines with the same devices. The first asks for the accesses of an
instruction at once, over a link. The second asks for each byte with a request of its own. What the guest
reads, what the devices cause and in which order, their state, and all counts must be the same.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from zlib import crc32

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.catalog import build_model
from kvmbox.contract.device_spec import DeviceSpec, Memory
from kvmbox.contract.model import Effect, HostOutput, InputRoom, IrqLine, MemoryRead, MemoryWrite, Reset, Stop
from kvmbox.jail.server import DeviceServer
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.bus.routing import Bus, Mapping
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.channel.journal import Journal
from kvmbox.remote.process.crash_policy import Survival
from kvmbox.remote.published.guest_memory import MemoryAccess
from kvmbox.remote.transport.direct import DirectLink
from kvmbox.remote.transport.interface import Link
from kvmbox.remote.transport.shared_page import PageTransport
from kvmbox.wire import page_layout, protocol
from tests.support.calling import CallingTransport
from tests.support.halves import Half, built_halves
from tests.support.patience import patience

HALVES: Final = {"compiled" if half.is_compiled else "pure": half for half in built_halves()}
LINKS: Final = ("none", "socket", "pipe", "page", "spinning page")


class Moody:
    """A model whose every access changes its state, and whose state decides what comes of an access."""

    def __init__(self, **_: object) -> None:
        self.state = 1
        self.effects: list[Effect] = []

    def _mix(self, *what: object) -> int:
        self.state = crc32(repr(what).encode(), self.state)
        return self.state

    def read(self, now: int, offset: int, size: int) -> int:
        mood = self._mix("read", now, offset, size)
        self._act(mood >> 8, is_write=False)
        return crc32(b"read", mood) & (1 << 8 * size) - 1

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        self._act(self._mix("write", now, offset, size, value) >> 8, is_write=True)

    def _act(self, mood: int, *, is_write: bool) -> None:
        choice = mood % 12
        if choice in (0, 1):
            self.effects.append(HostOutput(bytes([mood & 0xFF])))
        elif choice == 2:
            self.effects += [IrqLine(0, 1), HostOutput(bytes(mood % 700)), IrqLine(0, 0)]
        elif choice == 3:
            self.effects += [IrqLine(0, mood & 1)] * (mood % 70)
        elif choice == 4:
            self.effects.append(InputRoom(mood & 0xFF))
        elif choice == 5 and is_write:
            self.effects += [Stop(), Reset()]

    def advance(self, now: int) -> None:
        pass

    def reset(self, now: int) -> None:
        pass

    def receive(self, now: int, data: bytes) -> int:
        return 0

    def next_deadline(self) -> int | None:
        return (1 << 40) + self.state if self.state & 3 else None

    def take_effects(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects

    def snapshot(self) -> bytes:
        return self.state.to_bytes(4, "little")

    def restore(self, state: bytes) -> None:
        self.state = int.from_bytes(state, "little")


class Asking(Moody):
    """The same, and it asks for guest memory: what it reads next depends on the answer."""

    writes = 1024

    def _act(self, mood: int, *, is_write: bool) -> None:
        if mood % 3 == 0:
            self.effects.append(MemoryRead(mood & 0xFF, ((layout.PAGE_SIZE - mood % 200, 100),)))
        elif mood % 7 == 0:
            self.effects.append(MemoryWrite(mood % 50, bytes([mood & 0xFF]) * self.writes, 0))
        else:
            super()._act(mood, is_write=is_write)

    def memory(self, now: int, tag: int, data: bytes | None) -> None:
        self._mix("memory", now, tag, data)

    def complete(self, now: int, tag: int, status: int) -> None:
        self._mix("complete", now, tag, status)


class Filling(Asking):
    """The same, and it writes as much at a time as fits in one reply."""

    writes = 4040


OWN: Final[dict[str, type[Moody]]] = {"moody": Moody, "asking": Asking, "filling": Filling}
WIDE: Final = frozenset({2, 4})
DEVICES: Final = (
    # Ports, model, natural sizes. Some are neighbours: an access may go to two devices, or to nobody.
    (0x3F8, 8, "uart_16550a", frozenset[int]()),
    (0x40, 4, "pit_8254", frozenset[int]()),
    (0x70, 2, "rtc_mc146818", frozenset[int]()),
    (0xE9, 1, "debugcon", frozenset[int]()),
    (0x100, 7, "moody", frozenset[int]()),
    (0x107, 9, "moody", WIDE),
    (0x110, 6, "asking", frozenset[int]()),
    (0x116, 6, "asking", WIDE),
    (0x11C, 4, "filling", WIDE),
)
GRANTED: Final = {"asking": (Memory(max_bytes=Asking.writes),), "filling": (Memory(),)}
PARAMETERS: Final = {"rtc_mc146818": {"base_seconds": 0, "memory_bytes": 1 << 24}}


def build(name: str, parameters: dict[str, Any]) -> Any:
    return OWN[name]() if name in OWN else build_model(name, parameters)


class Keeping(Survival):
    """Keeps a journal."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = Journal()


class Machine:
    """The devices on a bus, behind one channel. `at_once`: whether a block is one request."""

    def __init__(self, kind: type[Channel], link: Any, *, at_once: bool, recorded: bool = False) -> None:
        self.now = 0
        self.log: list[tuple[object, ...]] = []
        self.records: list[tuple[bytes, bytes]] = []
        self.ram = GuestMemory(layout.PAGE_SIZE)
        self.channel = kind(
            "all",
            link,
            [self._grants(number) for number in range(len(DEVICES))],
            now=lambda: self.now,
            survival=Keeping() if recorded else None,
            record=(lambda *exchange: self.records.append(exchange)) if recorded else None,
            slice_ms=1000,  # the other side is a thread here: a busy host may well keep it for half a second
        )
        self.bus = Bus(16)
        specs = []
        self.proxies = []
        for index, (first, count, model, sizes) in enumerate(DEVICES):
            spec = DeviceSpec(
                f"{model} {index}",
                "all",
                model,
                parameters=PARAMETERS.get(model, {}),
                natural_sizes=sizes,
                grants=GRANTED.get(model, ()),
            )
            specs.append(spec)
            proxy = DeviceProxy.of(self.channel, index, spec)
            self.proxies.append(proxy)
            self.bus.attach(Mapping(first, count, proxy, direct=proxy if at_once else None))
        greet(self.channel, specs)

    def _grants(self, index: int) -> Grants:
        def note(what: str) -> Callable[..., None]:
            return lambda *how: self.log.append((index, what, *how))

        return Grants(
            str(index),
            irq_lines=[note("irq")],
            output=lambda data: self._output(index, data),
            input_room=note("room"),
            reset=note("reset"),
            stop=note("stop"),
            late_writes={0: note("late")},
            memory=MemoryAccess(Memory(), self.ram),
        )

    def _output(self, index: int, data: bytes) -> None:
        # A reply may combine output that nothing came between.
        if self.log and self.log[-1][:2] == (index, "output"):
            data = self.log.pop()[2] + data  # type: ignore[operator]
        self.log.append((index, "output", data))

    def run(self, program: list[tuple[Any, ...]]) -> list[object]:
        """What the guest reads."""
        read: list[object] = []
        for is_read, port, size, count, seed, step in program:
            self.now += step
            data = (seed * size * count)[: size * count]
            if count == 1 and is_read:
                read.append(self.bus.read(port, size))
            elif count == 1:
                self.bus.write(port, size, int.from_bytes(data, "little"))
            elif is_read:
                read.append(self.bus.read_string(port, size, count))
            else:
                self.bus.write_string(port, size, data)
            read.append(self.channel.deadline)
        return read

    def state(self) -> tuple[object, ...]:
        """Everything else."""
        snapshots = [
            self.channel.request(protocol.SNAPSHOT, device=index, limit=1 << 20)[1]
            for index in range(len(DEVICES))
        ]
        return (
            self.log,
            snapshots,
            [(proxy.reads, proxy.writes) for proxy in self.proxies],
            (self.bus.unclaimed_reads, self.bus.unclaimed_writes),
            bytes(self.ram.gather([(0, layout.PAGE_SIZE)])),
        )


def server() -> DeviceServer:
    return DeviceServer(build=build)


def one_by_one() -> Machine:
    return Machine(Channel, CallingTransport(server().handle), at_once=False)


@contextmanager
def machine(half: Half, ipc: str, *, recorded: bool = False) -> Iterator[Machine]:
    """A machine that asks at once, over a link of this kind."""
    if ipc == "none":
        yield Machine(half.channel, DirectLink(server), at_once=True, recorded=recorded)
        return
    options = {"alone": False} if half.is_compiled else {}
    if "page" in ipc:
        page = mmap.mmap(-1, page_layout.SIZE)
        doorbell, bell_of_device = os.pipe()
        vmm_doorbell, bell_of_vmm = os.pipe()
        ends: tuple[int, ...] = doorbell, bell_of_vmm
        link = Link(half.page, (bell_of_device, vmm_doorbell), (), page)
        port = half.page_port(page, doorbell, bell_of_vmm, **options)
    else:
        link = (half.pipe if ipc == "pipe" else half.socket).connect([], None)
        ends = link.device
        port = half.stream_port(ends[0], ends[-1], **options)
    thread = threading.Thread(target=half.serve, args=(port, server()), daemon=True)
    thread.start()
    here = Machine(half.channel, link, at_once=True, recorded=recorded)
    if isinstance(here.channel.transport, PageTransport):
        here.channel.transport.allow_spinning(ipc == "spinning page")
    try:
        yield here
    finally:
        here.channel.close()
        thread.join(patience(30.0))
        assert not thread.is_alive()
        for descriptor in ends:
            os.close(descriptor)


PORTS: Final = st.one_of(
    st.sampled_from([0x3F6, 0x3F8, 0x3F9, 0x3FC, 0x3FE, 0x40, 0x42, 0x70, 0x71, 0xE9, 0xFFFF]),
    st.integers(0xFE, 0x11F),
)
EXIT: Final = st.tuples(
    st.booleans(),
    PORTS,
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 1, 1, 2, 3, 70]),
    st.binary(min_size=1, max_size=9),
    st.integers(0, 3_000_000),
)
PROGRAMS: Final = st.lists(EXIT, max_size=12)
LONG: Final[list[tuple[Any, ...]]] = [
    (is_read, port, size, 1100, b"abc", 1)
    for is_read in (True, False)
    for port, size in ((0x3FF, 1), (0x108, 4))
]
"""More than fits in one request."""


@pytest.mark.parametrize("ipc", LINKS)
@pytest.mark.parametrize("half", HALVES)
def test_accesses_of_an_instruction_at_once_are_those_one_by_one(half: str, ipc: str) -> None:
    @settings(max_examples=20)
    @given(PROGRAMS)
    @example(LONG)
    def check(program: list[tuple[Any, ...]]) -> None:
        expected = one_by_one()
        reads = expected.run(program)
        with machine(HALVES[half], ipc) as tried:
            assert tried.run(program) == reads
            assert tried.state() == expected.state()

    check()


@pytest.mark.parametrize("ipc", ["none", "socket"])
@pytest.mark.parametrize("half", HALVES)
def test_blocks_that_were_recorded_and_journaled_replay_to_the_same_replies(half: str, ipc: str) -> None:
    @settings(max_examples=15)
    @given(PROGRAMS)
    def check(program: list[tuple[Any, ...]]) -> None:
        with machine(HALVES[half], ipc, recorded=True) as tried:
            tried.run(program)
            again = server()
            for request, reply in tried.records:
                assert again.handle(request) == reply
            journal = tried.channel.survival.journal
            assert journal is not None
            sent = [protocol.WORDS.pack(*words) + payload for words, payload, _, _ in journal]
            assert sent == [request for request, _ in tried.records if request[0] != protocol.HELLO]

    check()
