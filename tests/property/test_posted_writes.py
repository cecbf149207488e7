"""Posted writes: a guest cannot tell whether its output is late.

A guest drives a UART with or without its transmitter's interrupt, at random: it writes characters,
acknowledges, polls, and changes what interrupts. Input arrives and time passes meanwhile, and writes to a
debug console do not exit. It runs in pure Python, where each character is a request, and compiled, where the
VMM posts most of them. What the guest reads, each edge of the line, what is printed, and the state of the
model have to be the same.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Any, Final, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvmbox.base.compiled import why_not_built
from kvmbox.base.errors import KvmError
from kvmbox.jail.server import DeviceServer
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.bus.routing import Bus, Mapping
from kvmbox.remote.channel.grants import Grants
from kvmbox.run.vcpu.coalesced_ring import ENTRIES, MOST_POSTED
from kvmbox.run.vcpu.late_writes import LateWrites
from kvmbox.wire import protocol
from tests.support.fake_room import FakeRoom
from tests.support.halves import Half, built_halves
from tests.support.kernel_ring import indices, kernel_writes
from tests.support.scripted_vcpu import DATA, IN, OUT, FakeVcpu

HALVES: Final = built_halves()

pytestmark = pytest.mark.skipif(len(HALVES) < 2, reason=f"compiled: {why_not_built()}")

COM1, CONSOLE, IRQ = 0x3F8, 0xE9, 4
THR, IER, IIR, FCR, LCR, MCR, LSR, SCR = (
    COM1,
    COM1 + 1,
    COM1 + 2,
    COM1 + 2,
    COM1 + 3,
    COM1 + 4,
    COM1 + 5,
    COM1 + 7,
)
CHARACTER_TIME: Final = 347_223  # of four characters at 115200 baud, in ns

BYTE: Final = st.integers(0, 0xFF)
PRINT: Final = st.tuples(st.just("out"), st.just(THR), BYTE)
STEP: Final = st.one_of(
    PRINT,
    PRINT,
    st.tuples(st.just("out"), st.just(IER), st.sampled_from([2, 2, 2, 3, 0, 1, 6, 0xF])),
    st.tuples(st.just("in"), st.sampled_from([IIR, IIR, LSR, THR, COM1 + 6, IER])),
    st.tuples(
        st.just("out"), st.sampled_from([FCR, LCR, MCR, SCR]), st.sampled_from([0, 1, 3, 7, 0x10, 0x80])
    ),
    st.tuples(st.just("late"), BYTE),
    st.tuples(st.just("input"), BYTE),
    st.tuples(st.sampled_from(["time", "stall"]), st.sampled_from([1, 250, CHARACTER_TIME])),
    st.just(("flush",)),
)


def exit_of(step: tuple[Any, ...]) -> tuple[Any, ...]:
    """Direction, port and what else an access of the guest has."""
    what, *details = step
    return IN if what == "in" else OUT, *details


class FakeVm:
    """Counts the ports that KVM is to coalesce, and coalesces none."""

    def __init__(self) -> None:
        self.coalesced = 0

    def register_coalesced(self, _port: int, _size: int, *, pio: bool) -> None:
        self.coalesced += pio

    def unregister_coalesced(self, _port: int, _size: int, *, pio: bool) -> None:
        self.coalesced -= pio


class Machine:
    """A loop, a ring, a router and a UART beside a debug console."""

    def __init__(self, half: Half) -> None:
        self.vcpu = FakeVcpu()
        self.clock = half.clock()
        self.time = 1_000
        self.printed = b""
        self.seen: list[tuple[object, ...]] = []
        self.router = half.router(self.clock)
        self.router.attach(lambda _gsi, _level: None)
        late, ports = LateWrites(), Bus(16)
        link = half.socket.connect([], None)
        self.server = DeviceServer()
        self.thread = threading.Thread(target=self.serve, args=(half, link.device), daemon=True)
        self.thread.start()
        grants = [
            Grants(
                "uart",
                irq_lines=[self.router.source(IRQ)],
                output=self.print,
                input_room=lambda _: None,
                late_writes={0: late.add(COM1)},
            ),
            Grants("console", output=self.print),
        ]
        self.channel = half.channel("uart", link, grants, now=self.clock.now, slice_ms=3_000)
        for request in protocol.hello_requests([("uart_16550a", {}), ("debugcon", {})]):
            self.channel.request(
                protocol.HELLO, value=request.value, payload=request.payload, limit=0xFFFF_FFFF
            )
        zones = {}
        for index, (port, count) in enumerate(((COM1, 8), (CONSOLE, 1))):
            proxy = DeviceProxy(self.channel, index, f"device {index}", frozenset())
            ports.attach(Mapping(port, count, proxy, direct=proxy))
            zones[port] = proxy, 0
        self.uart = zones[COM1][0]
        vcpu = self.vcpu
        self.ring = half.ring(vcpu.words64, vcpu.words32, vcpu.bytes, zones, room=FakeRoom())
        self.vm = FakeVm()
        late.attach(cast(Any, self.vm), self.ring)
        self.control = half.control(vcpu.kick)
        self.loop = half.loop(
            self.control, cast(Vcpu, vcpu), ports, Bus(52), read_memory=lambda _address: None, ring=self.ring
        )

    def serve(self, half: Half, ends: tuple[int, ...]) -> None:
        port = half.stream_port(ends[0], ends[-1], **({"alone": False} if half.is_compiled else {}))
        half.serve(port, self.server)
        os.close(ends[0])

    def print(self, text: bytes) -> None:
        self.printed += text

    def let_pass(self, nanoseconds: int) -> None:
        """Time passes, and the process is told at its deadline."""
        self.stall(nanoseconds)
        if self.channel.deadline <= self.time:
            self.channel.request(protocol.ADVANCE)

    def stall(self, nanoseconds: int) -> None:
        """The clock runs, on a loan that is used up at once; the main thread does not."""
        self.time += nanoseconds
        self.clock.hold()
        self.clock.skip_to(self.time)
        self.clock.lend(0)
        self.clock.release()

    def late(self, byte: int) -> None:
        first, last = indices(self.vcpu.page)
        if (last + 1) % ENTRIES != first:
            kernel_writes(self.vcpu.page, CONSOLE, bytes([byte]))

    def input(self, byte: int) -> None:
        taken, _ = self.channel.request(protocol.RECEIVE, payload=bytes([byte]), limit=1)
        self.seen.append(("taken", taken))

    def prepare(self, what: str, *details: int) -> None:
        script = self.vcpu.script
        acts: dict[str, Callable[..., object]] = {
            "late": self.late,
            "input": self.input,
            "time": self.let_pass,
            "stall": self.stall,
            "flush": self.ring.flush,
        }

        def between() -> int:
            if what in acts:
                acts[what](*details)
            line = self.router.lines[IRQ]
            self.seen.append((what, self.vcpu.page[DATA], line.raised, line.is_high))
            return -errno.EINTR

        if what not in acts:
            script.append(self.vcpu.port_exit(*exit_of((what, *details))))
        script.append(between)

    def play(self, steps: list[tuple[Any, ...]]) -> tuple[object, ...]:
        """What the guest and the world have seen, what was counted, and the model at the end."""
        self.let_pass(0)
        for step in steps:
            self.prepare(*step)

        def leave() -> int:
            self.control.leave()
            return -errno.EINTR

        self.vcpu.script.append(leave)
        self.loop.run()
        requests = self.channel._sequence
        self.channel.request(protocol.ADVANCE)
        self.channel.close()
        self.thread.join(30)
        self.requests = requests
        counts = self.uart.reads, self.uart.writes, self.loop.routes.guest_exits
        line = self.router.lines[IRQ]
        end = line.raised, line.coalesced, line.is_high, self.router._sources[0].ahead
        return self.seen, self.printed, counts, end, self.server.models[0].snapshot()


FIFO: Final = [("out", THR, 0x2E)] * 16
POLLED: Final = [("in", LSR), ("out", THR, 0x2E)]
DRIVER: Final = [("out", IER, 2), ("in", IIR), *FIFO, ("out", FCR, 1)]
"""The first exit of each kind goes by the bus."""


@settings(max_examples=400, deadline=None)
@given(steps=st.lists(STEP, max_size=60), drives=st.booleans())
@example(
    steps=[
        ("out", FCR, 0x81),
        ("out", IER, 3),
        ("input", 0x42),
        ("stall", CHARACTER_TIME),
        ("out", THR, 0x41),
    ],
    drives=True,
)
@example(
    steps=[("out", IER, 3), ("out", THR, 0x41), ("input", 0x42), ("in", IIR), ("in", THR), ("in", IIR)],
    drives=True,
)
@example(
    steps=[("in", IIR), ("out", THR, 0x41), ("input", 0x42), ("in", IIR), ("in", THR), ("in", IIR)],
    drives=True,
)
@example(
    steps=[
        *(("out", IER, 3), ("input", 0x42), ("in", IIR), ("in", THR), ("out", FCR, 0x81), ("input", 0x43)),
        *(("in", IIR), ("out", THR, 0x41), ("time", CHARACTER_TIME), ("in", IIR), ("in", THR), ("in", IIR)),
    ],
    drives=True,
)
@example(
    steps=[*FIFO, ("late", 0x45), *FIFO, ("late", 0x46), *FIFO, ("flush",), ("in", IIR)] * 5, drives=True
)
def test_guest_cannot_tell_whether_its_output_is_posted(steps: list[tuple[Any, ...]], drives: bool) -> None:
    prompt, posted = (Machine(half).play(DRIVER * drives + steps) for half in HALVES)
    assert posted == prompt


@pytest.mark.parametrize(
    ("driven", "expected"),
    [
        pytest.param([("in", IIR), *FIFO] * 8, 16, id="a FIFO is a run and a read"),
        pytest.param(
            [("in", IIR), ("out", THR, 0x41)] * 8, 8, id="a character travels with the read behind it"
        ),
        pytest.param([("out", IER, 0), *POLLED * 80], 5, id="polled: two runs, each with a read"),
        pytest.param([("out", IER, 3), ("input", 0x41), *FIFO], 18, id="input is reported: none is posted"),
        pytest.param([("out", MCR, 0x10), *FIFO], 17, id="the loop receives what is written"),
    ],
)
def test_posted_output_takes_few_requests(driven: list[tuple[Any, ...]], expected: int) -> None:
    without, with_it = Machine(HALVES[1]), Machine(HALVES[1])
    warm = [*DRIVER, ("out", MCR, 0), ("in", IIR)]
    without.play(warm)
    with_it.play([*warm, *driven, ("in", IIR)])
    assert with_it.requests - without.requests - 1 == expected


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("driven", [FIFO, [("in", IIR), *FIFO]], ids=["posted", "reported"])
def test_line_that_kvm_does_not_take_ends_the_run(half: Half, driven: list[tuple[Any, ...]]) -> None:
    def refuse(_gsi: int, _level: int) -> None:
        raise KvmError("KVM_IRQ_LINE failed")

    def build_another_machine() -> int:
        machine.router.attach(refuse, 1 << 20, are_set=True)
        return -errno.EINTR

    machine = Machine(half)
    machine.let_pass(0)
    machine.vcpu.script += [machine.vcpu.port_exit(*exit_of(step)) for step in DRIVER]
    machine.vcpu.script.append(build_another_machine)
    machine.vcpu.script += [machine.vcpu.port_exit(*exit_of(step)) for step in driven]
    with pytest.raises(KvmError, match="KVM_IRQ_LINE"):
        machine.loop.run()
    machine.channel.close()
    machine.thread.join(30)


@pytest.mark.parametrize(("count", "expected"), [(MOST_POSTED, 0), (MOST_POSTED + 1, 1), (400, 1)])
def test_kvm_coalesces_a_port_to_which_a_guest_writes_without_interrupts(count: int, expected: int) -> None:
    machine = Machine(HALVES[1])
    machine.play(POLLED * count)  # the first one goes by the bus
    assert machine.vm.coalesced == expected


def test_kvm_does_not_coalesce_a_port_whose_writes_interrupt() -> None:
    machine = Machine(HALVES[1])
    machine.play([*DRIVER, *FIFO * 4])
    assert machine.vm.coalesced == 0


@pytest.mark.parametrize("count", range(164, 176))
def test_read_that_a_write_has_followed_is_not_made_a_ring_later(count: int) -> None:
    """A ring has room for 169 writes, and as many places: behind 170 the newest one is in the same place."""
    begin = [("out", IER, 0), ("in", IIR), *POLLED * 4, ("in", IIR)]
    more = [*[("out", THR, 0x2E)] * 100, ("in", IIR), *[("out", THR, 0x2E)] * (count - 100), ("in", IIR)]
    steps = [*begin, *more, ("in", LSR), ("input", 0x41), ("in", LSR)]
    prompt, posted = (Machine(half).play(steps) for half in HALVES)
    assert posted == prompt
