"""Steady reads: a guest cannot tell whether the VMM answers some of its reads by itself.

A guest polls a UART and a clock, at random, and does what ends a steady value: it writes, time passes, input
arrives, writes that have not exited are delivered or wait. It runs twice. The models of the second run never
say that a value is steady. What the guest reads, what is printed, and the state that the models are left in
have to be the same.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvmbox.contract.catalog import build_model
from kvmbox.contract.model import DeviceModel
from kvmbox.jail.server import DeviceServer
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.bus.routing import Bus, Mapping
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.run.vcpu.coalesced_ring import ENTRIES
from kvmbox.wire import protocol
from tests.support.fake_room import FakeRoom
from tests.support.halves import Half, half_of
from tests.support.kernel_ring import indices, kernel_writes
from tests.support.log import Log
from tests.support.scripted_vcpu import DATA, IN, OUT, FakeVcpu

Parameters = dict[str, int | bytes]

COM1, RTC = 0x3F8, 0x70
LSR, RTC_DATA = COM1 + 5, RTC + 1
MODELS: Final[dict[str, tuple[str, dict[str, int], int, int]]] = {
    "uart": ("uart_16550a", {}, COM1, 8),
    "rtc": ("rtc_mc146818", {"base_seconds": 951_827_696, "memory_bytes": 1 << 27}, RTC, 2),
}
PRINTS: Final = "prints"

SECOND: Final = [("time", 5_000_000_000), ("clock", 0), ("clock", 0), ("time", 980_000_000)]
"""20 ms are left until the clock's next update, and no flag of it will be set then."""

DRIVER: Final = [("in", LSR), ("in", LSR), ("in", LSR)]
"""A guest that polls: from the third read on it listens, and LSR may be steady."""

BYTE: Final = st.integers(0, 0xFF)
INDEX: Final = st.sampled_from([0, 2, 4, 9, 0x0A, 0x0B, 0x0C, 0x0D, 0x10, 0x32, 0x40])
POLL: Final = st.tuples(st.just("in"), st.sampled_from([LSR, LSR, LSR, RTC_DATA, RTC_DATA]))
CLOCK: Final = st.tuples(st.just("clock"), INDEX)
"""An index that does not exit, and a read of the data behind it."""
STEP: Final = st.one_of(
    POLL,
    POLL,
    CLOCK,
    CLOCK,
    st.tuples(st.just("late"), st.just(COM1), BYTE),
    st.tuples(st.just("late"), st.just(RTC), INDEX),
    st.tuples(st.just("ins"), st.sampled_from([LSR, LSR, RTC_DATA, COM1]), st.sampled_from([2, 3, 64])),
    st.tuples(st.just("in"), st.sampled_from([COM1, COM1 + 1, COM1 + 2, COM1 + 3, COM1 + 6, RTC])),
    st.tuples(st.just("out"), st.sampled_from([COM1, COM1 + 1, COM1 + 2, COM1 + 3, COM1 + 4]), BYTE),
    st.tuples(st.just("out"), st.sampled_from([RTC, RTC_DATA]), INDEX),
    st.tuples(st.just("time"), st.sampled_from([1, 999, 250_000, 20_000_000, 980_000_000, 5_000_000_000])),
    st.tuples(st.just("input"), BYTE),
    st.sampled_from([("flush",), ("reset",), ("advance",), ("hold",)]),
)


def restless(name: str, parameters: Parameters) -> DeviceModel:
    """The model, which never says that a value is steady."""
    model = build_model(name, parameters)
    kind = type(model)
    return cast(DeviceModel, type(kind.__name__, (kind,), {"steady": None})(**parameters))


class Machine:
    """A loop, a ring, a clock that stands at `time`, and a channel to each model."""

    def __init__(self, half: Half, build: Callable[[str, Parameters], DeviceModel]) -> None:
        self.log = Log()
        self.vcpu = FakeVcpu()
        self.time = 1_000
        self.clock = half.clock()
        self.channels: dict[str, Channel] = {}
        self.requests = 0
        ports, zones = Bus(16), {}
        self.servers: list[DeviceServer] = []
        self.threads: list[threading.Thread] = []
        for name, (model, parameters, port, count) in MODELS.items():
            link = half.socket.connect([], None)
            self.servers.append(DeviceServer(build=build))
            self.serve(half, link.device, self.servers[-1])
            channel = self.channels[name] = half.channel(
                name,
                link,
                [
                    Grants(
                        name,
                        irq_lines=[self.log.note(f"{name} line")],
                        output=self.log.note(PRINTS),
                        input_room=self.log.note(f"{name} room"),
                        late_writes={0: self.allow},
                    )
                ],
                now=self.clock.now,
            )
            for request in protocol.hello_requests([(model, parameters)]):
                channel.request(
                    protocol.HELLO, value=request.value, payload=request.payload, limit=0xFFFF_FFFF
                )
            proxy = DeviceProxy(channel, 0, name, frozenset())
            ports.attach(Mapping(port, count, proxy, direct=proxy))
            zones[port] = proxy, 0
        self.ring = half.ring(
            self.vcpu.words64,
            self.vcpu.words32,
            self.vcpu.bytes,
            zones,
            room=FakeRoom(),
            carries=True,
        )
        self.allow(1)
        self.control = half.control(self.vcpu.kick)
        vcpu = cast(Vcpu, self.vcpu)
        self.loop = half.loop(
            self.control, vcpu, ports, Bus(52), read_memory=lambda _address: None, ring=self.ring
        )

    def serve(self, half: Half, ends: Sequence[int], server: DeviceServer) -> None:
        port = half.stream_port(ends[0], ends[-1], **({"alone": False} if half.is_compiled else {}))

        def work() -> None:
            half.serve(port, server)
            os.close(ends[0])

        self.threads.append(threading.Thread(target=work, daemon=True))
        self.threads[-1].start()

    def allow(self, allowed: int) -> None:
        self.allowed = allowed
        self.log.append(("late", allowed))
        self.ring.let_post(COM1, allowed)

    def let_pass(self, nanoseconds: int) -> None:
        """The clock runs, on a loan that is used up at once: it stands at `time`."""
        self.time += nanoseconds
        self.clock.hold()
        self.clock.skip_to(self.time)
        self.clock.lend(0)
        self.clock.release()

    def between(self, act: Callable[[], object]) -> Callable[[], int]:
        def play() -> int:
            act()
            return -errno.EINTR

        return play

    def hold(self) -> None:
        self.clock.hold()
        self.clock.release()

    def input(self, byte: int) -> None:
        taken, _ = self.channels["uart"].request(protocol.RECEIVE, payload=bytes([byte]), limit=1)
        self.log.append(("taken", taken))

    def reset(self) -> None:
        self.ring.flush()  # as a run loop that ends does
        self.tell_all(protocol.RESET)

    def tell_all(self, kind: int) -> None:
        for channel in self.channels.values():
            channel.request(kind)

    def late(self, port: int, byte: int) -> None:
        first, last = indices(self.vcpu.page)
        # Not while THR interrupts, even if the loop may post: KVM coalesces no write to it then.
        if (port != COM1 or self.allowed == 1) and (last + 1) % ENTRIES != first:
            kernel_writes(self.vcpu.page, port, bytes([byte]))

    def prepare(self, step: tuple[Any, ...]) -> None:
        script = self.vcpu.script
        what, *details = step
        if what == "clock":
            self.prepare(("late", RTC, details[0]))
            self.prepare(("in", RTC_DATA))
        elif what == "in":
            script.append(self.vcpu.port_exit(IN, details[0]))
            script.append(self.between(lambda: self.log.append(("read", details[0], self.vcpu.page[DATA]))))
        elif what == "ins":
            port, count = details
            script.append(self.vcpu.port_exit(IN, port, count=count))
            script.append(
                self.between(lambda: self.log.append((port, bytes(self.vcpu.page[DATA : DATA + count]))))
            )
        elif what == "out":
            # As in a machine: a port whose writes do not exit has no other writes, unless the ring is full.
            script.append(self.vcpu.port_exit(OUT, *details))
        else:
            acts: dict[str, Callable[..., object]] = {
                "late": self.late,
                "time": self.let_pass,
                "input": self.input,
                "flush": self.ring.flush,
                "hold": self.hold,
                "reset": self.reset,
                "advance": lambda: self.tell_all(protocol.ADVANCE),
            }
            act = acts[what]
            script.append(self.between(lambda: act(*details)))

    def play(self, steps: list[tuple[Any, ...]]) -> tuple[object, ...]:
        """What the guest and the world have seen, and the models at the end."""
        self.let_pass(0)
        for step in steps:
            self.prepare(step)
        self.vcpu.script.append(self.between(self.control.leave))
        self.loop.run()
        self.requests = sum(channel._sequence for channel in self.channels.values())
        self.tell_all(protocol.ADVANCE)
        for channel in self.channels.values():
            channel.close()
        for thread in self.threads:
            thread.join(30)
        # What waits in the ring is printed late, with or without steady reads.
        printed = b"".join(cast(bytes, call[1]) for call in self.log if call[0] == PRINTS)
        seen = [call for call in self.log if call[0] != PRINTS]
        return seen, printed, [server.models[0].snapshot() for server in self.servers]


@settings(max_examples=400, deadline=None)
@given(steps=st.lists(STEP, max_size=60), polls=st.booleans())
@example(steps=[*SECOND, ("clock", 0), ("time", 20_000_000), ("clock", 0)], polls=False)
@example(steps=[*SECOND, ("clock", 0x0A), ("time", 19_900_000), ("clock", 0x0A)], polls=False)
@example(steps=[("in", LSR), ("out", COM1 + 1, 2), ("in", LSR), ("out", COM1, 0), ("in", LSR)], polls=False)
@example(steps=[("in", LSR), ("out", COM1 + 1, 2), ("in", LSR), ("late", COM1, 0), ("in", LSR)], polls=False)
@pytest.mark.parametrize("name", ["pure", "compiled"])
def test_guest_cannot_tell_whether_reads_are_steady(
    name: str, steps: list[tuple[Any, ...]], polls: bool
) -> None:
    half = half_of(name)
    if half is None:
        pytest.skip("compiled: not built")
    steps = DRIVER * polls + steps
    steady, restless_one = (Machine(half, build).play(steps) for build in (build_model, restless))
    assert steady == restless_one


def requests_of(half: Half, steps: list[tuple[Any, ...]]) -> int:
    """How many requests the steps cause, besides those of a machine that does nothing."""
    machines = Machine(half, build_model), Machine(half, build_model)
    machines[0].play([])
    machines[1].play(steps)
    return machines[1].requests - machines[0].requests


# The first of each kind of exit goes by the bus. LSR is steady then.
WARM: Final = [*DRIVER, ("clock", 0), ("flush",), ("in", RTC_DATA)]


@pytest.mark.parametrize(
    ("polled", "expected"),
    [
        pytest.param([("in", LSR)] * 50, 0, id="lsr"),
        pytest.param([("in", LSR), ("late", COM1, 0x41)] * 50, 1, id="output"),
        pytest.param([("late", COM1, 0x41), ("in", LSR)] * 50, 1, id="output, polled behind"),
        pytest.param([("clock", 0)] * 50, 2, id="clock"),
        pytest.param([("clock", 0), ("clock", 2), ("clock", 4)] * 20, 4, id="three registers of the clock"),
        pytest.param([("in", LSR), ("input", 0x41)] * 5, 9, id="input"),
        pytest.param([("in", LSR), ("time", 30_000_000)] * 6, 2, id="time"),
        pytest.param([("clock", 0x0C)] * 5, 5, id="a register that reading clears"),
        pytest.param([("in", LSR), ("out", COM1 + 7, 1)] * 5, 9, id="another register written"),
    ],
)
def test_steady_value_is_asked_for_once(half: Half, polled: list[tuple[Any, ...]], expected: int) -> None:
    assert requests_of(half, WARM + polled) - requests_of(half, WARM) == expected


@pytest.mark.parametrize(
    ("polled", "expected"),
    [
        # In pure Python and compiled, where the first exit of a kind goes by the bus and tells nothing.
        pytest.param([("in", LSR), ("late", COM1, 0x41)] * 50, (2, 4), id="before each character"),
        pytest.param([("late", COM1, 0x41), ("in", LSR)] * 50, (4, 6), id="behind each character"),
        pytest.param([("in", LSR), ("late", COM1, 0x41)] * 400, (6, 7), id="more than the ring holds"),
        pytest.param(
            [("in", LSR), ("late", COM1, 0x41), ("flush",)] * 5, (10, 10), id="with a flush each time"
        ),
    ],
)
def test_guest_that_prints_and_does_not_listen_has_to_ask_once(
    half: Half, polled: list[tuple[Any, ...]], expected: tuple[int, int]
) -> None:
    assert requests_of(half, polled) == expected[half.is_compiled]


@pytest.mark.parametrize(
    ("polled", "expected"),
    [
        # The first string goes by the bus, and the second one finds that the value is steady.
        pytest.param([("ins", LSR, 64)] * 50, 2, id="strings alone"),
        pytest.param([*DRIVER, ("ins", LSR, 64), ("flush",)] * 5, 2, id="with single reads"),
        pytest.param([("ins", LSR, 64), ("input", 0x41)] * 5, 10, id="input"),
        # A string whose first read was not steady is made of single reads, once.
        pytest.param([("ins", COM1, 8)] * 5, 1 + 8 + 3, id="a register that reading changes"),
    ],
)
def test_string_of_reads_of_a_steady_value_is_asked_for_once(
    polled: list[tuple[Any, ...]], expected: int
) -> None:
    half = half_of("compiled")
    if half is None:
        pytest.skip("compiled: not built")
    assert requests_of(half, polled) == expected


def test_write_that_exits_travels_with_those_before_it() -> None:
    half = half_of("compiled")
    if half is None:
        pytest.skip("compiled: not built")
    written = [("late", COM1, 0x41), ("out", COM1 + 7, 1)]
    assert requests_of(half, WARM + written * 6) - requests_of(half, WARM + written) == 5


def test_exits_that_were_answered_with_a_steady_value_are_counted(half: Half) -> None:
    machine = Machine(half, build_model)
    machine.play([*WARM, *[("in", LSR)] * 50, ("input", 0x41), ("in", LSR)])
    routes = machine.loop.routes
    lsr = IN | 1 << 8 | LSR << 16
    # Not: the one that went by the bus, the one that was asked for behind it, and the one behind the input.
    assert routes.steady_exits[lsr] == routes.port_exits[lsr] - 3 == 51
