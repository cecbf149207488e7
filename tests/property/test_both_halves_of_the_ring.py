"""The run loop with KVM's ring of coalesced writes, in pure Python and compiled, against each other.

The guest makes writes that do not exit, and accesses that do, at random. The main thread flushes between them
at random. Both halves must do the same, in the same order, however the models are reached: a read takes along
the write before it, and some of the models print.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.base.compiled import why_not_built
from kvmbox.jail.server import DeviceServer
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.bus.routing import Bus, Mapping
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.journal import Entry, Journal
from kvmbox.remote.process.crash_policy import Survival
from kvmbox.remote.transport.direct import DirectLink
from kvmbox.wire import protocol
from kvmbox.wire.access_blocks import BLOCKS, Block
from tests.support.fake_room import FakeRoom
from tests.support.halves import Half, built_halves
from tests.support.kernel_ring import indices, kernel_writes
from tests.support.log import Log
from tests.support.scripted_vcpu import DATA, IN, OUT, FakeVcpu

HALVES: Final = built_halves()

pytestmark = pytest.mark.skipif(len(HALVES) < 2, reason=f"compiled: {why_not_built()}")

# Two processes. The first has a UART, the debug console and POST, the second a UART and a VGA.
PROCESSES: Final = {"first": ("uart_16550a", "debugcon", "post"), "second": ("uart_16550a", "vga_text")}
FIRST_PORTS: Final = {"first": (0x3F8, 0xE9, 0x80), "second": (0x2F8, 0x3B0)}
LATE_PORTS: Final = (0x3F8, 0xE9, 0x80, 0x2F8)
LATCHES: Final = (0x80, 0x3D4)
"""POST, and the VGA's index: whatever a run leaves there is what the last write of it leaves."""
PRINTS: Final = ("uart_16550a", "debugcon")
INDEX, DATA_OF_INDEX, MISC = 0x3D4, 0x3D5, 0x3C2
COUNTS: Final = {"uart_16550a": 8, "vga_text": 0x30}

BYTE: Final = st.integers(0, 0xFF)
LATE: Final = st.tuples(st.just("late"), st.sampled_from(LATE_PORTS), BYTE)
READ: Final = st.tuples(
    st.just("in"), st.sampled_from([0x3FD, 0x3FD, 0x3FF, 0x2FD, 0xE9, 0x80, 0x1234, 0x3D5, 0x3D4])
)
WRITE: Final = st.tuples(
    st.just("out"), st.sampled_from([0x3F8, 0x3F9, 0x3FC, 0x3FF, 0x2F8, 0x80, MISC]), BYTE
)
MOVE: Final = st.tuples(st.just("move"), st.lists(st.sampled_from([INDEX, DATA_OF_INDEX]), max_size=8), BYTE)
"""Writes to the VGA's index and data, often in turn."""
LATCH: Final = st.tuples(st.just("move"), st.sampled_from([[0x80], [0x80] * 3, [INDEX], [INDEX] * 5]), BYTE)
"""Writes to one latch."""
PRINT: Final = st.tuples(st.just("print"), st.sampled_from(["first", "second"]), BYTE)
"""A late write to a UART, and a read of its LSR or its IIR."""
STEPS: Final = st.lists(
    st.one_of(PRINT, PRINT, LATE, MOVE, LATCH, READ, WRITE, st.just(("flush",)), st.just(("look",))),
    max_size=40,
)


def joined(calls: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The calls, with what a device prints in a row as one: compiled code may give several writes at once."""
    result: list[tuple[Any, ...]] = []
    for call in calls:
        if result and result[-1][0] == call[0] and str(call[0]).endswith("prints"):
            result[-1] = (call[0], result[-1][1] + call[1])
        else:
            result.append(call)
    return result


def accesses(entries: Iterable[Entry]) -> list[tuple[int, ...]]:
    """What the journal's requests ask for, each access of a block for itself, and the values of replies."""
    result: list[tuple[int, ...]] = []
    for head, payload, answer, _ in entries:
        request = protocol.decode_request(protocol.WORDS.pack(*head) + payload)
        block = Block(request) if request.kind in BLOCKS else None
        singles = [request] if block is None else [block.single(number) for number in range(block.count)]
        result += [(one.kind, one.device, one.size, one.offset, one.value, answer[2]) for one in singles]
    return result


class Keeping(Survival):
    """Keeps a journal, which is full after `limit` requests, and then begins anew."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal: Journal = journal
        self.kept: list[Entry] = []

    def journal_is_full(self) -> None:
        self.kept += self.journal
        self.journal.clear()


class Machine:
    """A loop, a ring, and two channels; `ipc` is how the models are reached."""

    def __init__(self, half: Half, ipc: str, *, carries: bool, journal_limit: int | None) -> None:
        self.half = half
        self.log = Log()
        self.vcpu = FakeVcpu()
        self.threads: list[threading.Thread] = []
        self.survivals: list[Keeping] = []
        self.channels: list[Channel] = []
        self.proxies: list[DeviceProxy] = []
        ports = Bus(16)
        zones: dict[int, tuple[DeviceProxy, int]] = {}
        self.time = 1_000
        for name, models in PROCESSES.items():
            survival = None if journal_limit is None else Keeping(half.journal(journal_limit))
            if survival is not None:
                self.survivals.append(survival)
            channel = self.channel(name, ipc, survival)
            self.channels.append(channel)
            for request in protocol.hello_requests([(model, {}) for model in models]):
                channel.request(
                    protocol.HELLO,
                    value=request.value,
                    offset=request.offset,
                    payload=request.payload,
                    limit=0xFFFF_FFFF,
                )
            for index, port in enumerate(FIRST_PORTS[name]):
                proxy = DeviceProxy(channel, index, f"{name} {index}", frozenset())
                self.proxies.append(proxy)
                ports.attach(Mapping(port, COUNTS.get(models[index], 1), proxy, direct=proxy))
                late = (INDEX, DATA_OF_INDEX) if models[index] == "vga_text" else (port,)
                zones |= {one: (proxy, one - port) for one in late}
        self.room = FakeRoom()
        self.ring = half.ring(
            self.vcpu.words64,
            self.vcpu.words32,
            self.vcpu.bytes,
            zones,
            room=self.room,
            latches=LATCHES,
            carries=carries,
        )
        self.control = half.control(self.vcpu.kick)
        vcpu = cast(Vcpu, self.vcpu)
        self.loop = half.loop(
            self.control, vcpu, ports, Bus(52), read_memory=lambda _address: None, ring=self.ring
        )

    def now(self) -> int:
        self.time += 1
        return self.time

    def channel(self, name: str, ipc: str, survival: Survival | None) -> Channel:
        grants = [
            Grants(
                f"{name} {index}",
                irq_lines=[self.log.note(f"{name} {index} line")] if model == "uart_16550a" else [],
                output=self.log.note(f"{name} {index} prints") if model in PRINTS else None,
                late_writes={0: self.log.note(f"{name} {index} late")} if model == "uart_16550a" else {},
            )
            for index, model in enumerate(PROCESSES[name])
        ]
        options: dict[str, Any] = {
            "now": self.now,
            "deadline_changed": self.log.note(f"{name} deadline"),
            "survival": survival,
            "slice_ms": 1000,  # the other side is a thread: a busy host may well keep it for half a second
        }
        if ipc == "direct":
            return self.half.channel(name, DirectLink(), grants, **options)
        kind = {"page": self.half.page, "pipe": self.half.pipe, "socket": self.half.socket}[ipc]
        link = kind.connect([], None)
        channel = self.half.channel(name, link, grants, **options)
        options = {"alone": False} if self.half.is_compiled else {}
        if ipc == "page":
            *bells, memory = link.device
            os.close(memory)
            port = self.half.page_port(link.page, *bells, **options)
        else:
            bells = list({link.device[0], link.device[-1]})
            port = self.half.stream_port(link.device[0], link.device[-1], **options)

        def serve() -> None:
            with suppress(BrokenPipeError):  # the VMM's end is closed while it is rung
                self.half.serve(port, DeviceServer())
            for descriptor in bells:
                os.close(descriptor)

        self.threads.append(threading.Thread(target=serve, daemon=True))
        self.threads[-1].start()
        return channel

    def between(self, act: Callable[[], object]) -> Callable[[], int]:
        def play() -> int:
            act()
            return -errno.EINTR

        return play

    def look(self) -> None:
        self.log.append(("look", self.vcpu.page[DATA], *indices(self.vcpu.page), self.ring.writes))

    def prepare(self, step: tuple[Any, ...]) -> None:
        """Have the guest, or the main thread, take `step`."""
        script = self.vcpu.script
        what, *details = step
        if what == "print":
            process, byte = details
            self.prepare(("late", FIRST_PORTS[process][0], byte))
            self.prepare(("in", FIRST_PORTS[process][0] + (2 if byte == 0 else 5)))
        elif what == "move":
            for number, port in enumerate(details[0]):
                self.prepare(("late", port, details[1] + number & 0xFF))
        elif what == "late":
            # As long as there is room; a full ring would exit.
            script.append(self.between(lambda: kernel_writes(self.vcpu.page, details[0], bytes(details[1:]))))
        elif what == "in":
            script += [self.vcpu.port_exit(IN, details[0]), self.between(self.look)]
        elif what == "out":
            script.append(self.vcpu.port_exit(OUT, *details))
        else:
            script.append(self.between(self.ring.flush if what == "flush" else self.look))

    def play(self, steps: list[tuple[Any, ...]]) -> tuple[object, ...]:
        """Everything that the steps leave behind."""
        for step in steps:
            self.prepare(step)
        self.vcpu.script.append(self.between(self.control.leave))
        try:
            self.loop.run()
        finally:
            for channel in self.channels:
                channel.close()
            for thread in self.threads:
                thread.join(30)
        return (
            joined(self.log),
            [(proxy.name, proxy.reads, proxy.writes) for proxy in self.proxies],
            (self.ring.writes, indices(self.vcpu.page)),
            (self.loop.routes.exit_count, self.loop.routes.guest_exits, self.loop.routes.port_exits),
            [accesses([*survival.kept, *survival.journal]) for survival in self.survivals],
            [(channel.deadline, channel.waiting, channel.failure) for channel in self.channels],
        )


@settings(max_examples=120, deadline=None)
@given(
    STEPS, st.sampled_from(["direct", "page", "pipe", "socket"]), st.booleans(), st.sampled_from([None, 1, 7])
)
def test_loops_give_the_models_the_same_in_the_same_order(
    steps: list[tuple[Any, ...]], ipc: str, carries: bool, journal_limit: int | None
) -> None:
    # Twice, as the first exit of each kind goes by the bus.
    pure, compiled = (
        Machine(half, ipc, carries=carries, journal_limit=journal_limit).play(steps * 2) for half in HALVES
    )
    assert compiled == pure


@pytest.mark.parametrize("ipc", ["direct", "page", "pipe", "socket"])
def test_guest_whose_late_output_is_delivered_waits_for_room_before_it_reads_on(ipc: str) -> None:
    for half in HALVES:
        machine = Machine(half, ipc, carries=True, journal_limit=None)
        log, room = machine.log, machine.room
        room.wait = lambda log=log, room=room: log.append(("waits", room.postponed))  # type: ignore[misc]
        # The write is to another device than the read, which so cannot carry it along.
        seen = machine.play([("late", 0xE9, 0x41), ("in", 0x3F8 + 2)] * 4)[0]
        assert isinstance(seen, list)
        printed = [at for at, call in enumerate(seen) if call[0] == "first 1 prints"]
        assert len(printed) == 4
        for at in printed:
            (name, postponed), (following, *_) = seen[at + 1 : at + 3]
            assert (name, postponed, following) == ("waits", 0, "look"), half
