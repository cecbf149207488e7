"""`kvmbox bench --exit none`: what kvmbox itself does between two KVM_RUNs, without KVM.

Exits are replayed from memory: the compiled run loop finds each in kvm_run, as if KVM_RUN had just returned,
and handles it with the channels, transports, processes and models of a run. So no virtual machine and no
/dev/kvm is needed, and no host's exit hides what is measured. The caches are warm, as an exit leaves them on
hosts whose exits are fast.

A host's exit and this together are what an access takes there, if the exit leaves the caches alone. That is
the model behind `PREDICTED`: a prediction, not a measurement.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final, NamedTuple, cast

from kvmbox import layout
from kvmbox.board import BoardOptions, DeviceSpec, Irq, pc_board
from kvmbox.bus import Bus
from kvmbox.bus import Mapping as Mapped
from kvmbox.choice import compiled, is_compiled
from kvmbox.errors import UsageError
from kvmbox.host.placement import place
from kvmbox.kvm import uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.remote.direct import direct_channels
from kvmbox.remote.grants import Grants
from kvmbox.remote.pool import Design, DevicePool
from kvmbox.remote.proxy import DeviceProxy
from kvmbox.remote.transports import TRANSPORTS
from kvmbox.run.coalescing import CoalescedRing
from kvmbox.run.vcpu_state import VcpuControl
from kvmbox.sandbox.seccomp import device_filter
from kvmbox.tools.bench.plan import IPCS, NONE
from kvmbox.tools.bench.report import Table, number
from kvmbox.tools.bench.statistics import median

COM1: Final = layout.COM_PORTS["COM1"]
LSR: Final = COM1 + 5
DOT: Final = ord(".")
RTC_A: Final = 10
COALESCED: Final = 1 << 63
NAMES: Final = ("COM1", "RTC", "debugcon")
TIMES: Final = 20_000
"""How often each access is replayed in a round."""

ROUNDS: Final = 7


def in_(port: int, size: int = 1) -> tuple[int, int]:
    """An IN from `port`, as `ReplayCore` has it."""
    return uapi.KVM_EXIT_IO_IN | size << 8 | port << 16 | 1 << 32, 0


def out(port: int, value: int, *, coalesced: bool = False) -> tuple[int, int]:
    """An OUT of a byte; `coalesced`: KVM puts it into the ring, and it exits only if that is full."""
    return uapi.KVM_EXIT_IO_OUT | 1 << 8 | port << 16 | 1 << 32, value | (COALESCED if coalesced else 0)


class Access(NamedTuple):
    """An access that is measured: the exits that it causes, and those before the first one of them."""

    title: str
    exits: tuple[tuple[int, int], ...]
    before: tuple[tuple[int, int], ...] = ()


ACCESSES: Final = (
    Access("read of the line status register", (in_(LSR),)),
    Access("output, polled, per byte", (in_(LSR), out(COM1, DOT, coalesced=True))),
    Access("output, blind, per byte", (out(COM1, DOT, coalesced=True),)),
    Access("debug console, per byte", (out(layout.DEBUGCON_PORTS[0], DOT, coalesced=True),)),
    Access(
        "RTC: index and data",
        (out(layout.RTC_INDEX_PORT, RTC_A, coalesced=True), in_(layout.RTC_INDEX_PORT + 1)),
    ),
    Access("inl from a byte device", (in_(COM1 + 4, 4),)),
    Access("a write that the device has to see", (out(COM1 + 7, DOT),)),
    Access("output, interrupts on, per byte", (out(COM1, DOT),), before=(out(COM1 + 1, 2),)),
)
"""The last one leaves the UART with its interrupts on."""

PREDICTED: Final = (1.0, 1.5, 8.0)
"""What a bare exit takes, in µs: two of hosts with VMX or SVM, as published, and one of PVM."""


class _Vcpu:
    """The mapping of a vCPU that nobody runs."""

    def __init__(self) -> None:
        self.bytes = memoryview(bytearray(3 * 4096))
        self.words32, self.words64 = self.bytes.cast("I"), self.bytes.cast("Q")

    def fileno(self) -> int:
        return 0  # never used: the loop replays its exits

    def enter(self) -> int:
        raise AssertionError("nobody runs it")

    def nothing(self) -> None:
        """No kick, and nothing to clear."""

    kick = clear_kick = nothing


class _Room:
    """Output that is thrown away has room."""

    def postpone(self, thread: int) -> None:
        """See OutputRoom."""

    def wait_for_room(self) -> None:
        """See OutputRoom."""


def _ignore(*_arguments: object) -> None:
    """What an effect does here."""


def _grants(device: DeviceSpec, output: Callable[[bytes], None]) -> Grants:
    return Grants(
        device.name,
        irq_lines=[_ignore for _ in device.granted(Irq)],
        output=output,
        input_room=_ignore,
        late_writes={0: _ignore},
    )


class Path:
    """The VMM's path from exits to the devices of `channels`, by device type and in index order."""

    def __init__(self, channels: Sequence[tuple[Any, Sequence[DeviceSpec]]]) -> None:
        self._ports = Bus(16)
        vcpu = _Vcpu()
        zones: dict[int, tuple[DeviceProxy, int]] = {}
        latches: set[int] = set()
        for channel, devices in channels:
            for index, device in enumerate(devices):
                proxy = DeviceProxy.of(channel, index, device)
                for found in device.ports:
                    self._ports.attach(Mapped(found.first, found.count, proxy, found.offset, direct=proxy))
                latches.update(device.latches)
                for port in (*device.coalesced, *([COM1] if device.name == "COM1" else [])):
                    mapping = self._ports.find(port)
                    assert mapping is not None
                    zones[port] = proxy, mapping.register(port)
        ring_kind: type[CoalescedRing] = compiled("loop", "CompiledRing")
        ring = ring_kind(vcpu.words64, vcpu.words32, vcpu.bytes, zones, room=_Room(), latches=latches)
        kind: Any = compiled("loop", "ReplayedLoop")

        control = VcpuControl(kind.attention_kind(), vcpu.kick, lambda: None)
        self._leave = control.leave
        self._loop: Any = kind(
            control, cast(Vcpu, vcpu), self._ports, Bus(52), read_memory=lambda _: None, ring=ring
        )

    def time(self, access: Access, times: int) -> float:
        """Nanoseconds that `access` takes, of `times` of them."""
        # The first one of each kind finds its route, and a process that sleeps.
        self.play(access, times // 10 + 2)
        began = time.perf_counter_ns()
        self._replay(access.exits, times)
        return (time.perf_counter_ns() - began) / times

    def play(self, access: Access, times: int) -> None:
        """Make `access` so many times, after what comes before it."""
        if access.before:
            self._replay(access.before, 1)
        self._replay(access.exits, times)

    def _replay(self, exits: Sequence[tuple[int, int]], times: int) -> None:
        script = array("Q", [word for pair in exits for word in pair])
        self._loop.replays(script, times, self._leave)
        self._loop.run()


def _board() -> list[DeviceSpec]:
    options = BoardOptions(serial_ports=("COM1",), rtc_base=0, memory_size=1 << 24)
    return [device for device in pc_board(options) if device.name in NAMES]


@contextmanager
def path_to(ipc: str, output: Callable[[bytes], None] = _ignore) -> Iterator[Path]:
    """The path to processes over `ipc`, or to models in this process (NONE), which print to `output`. Raises
    SandboxError.
    """
    clock = compiled("loop", "CompiledClock")()
    clock.release()
    board = _board()
    grants = {device.name: _grants(device, output) for device in board}
    if ipc == NONE:
        yield Path(direct_channels(board, grants, now=clock.now, deadline_changed=_ignore))
        return
    with closing(place("auto")) as placement, closing(DevicePool(Design(ipc=ipc))) as pool:
        may_spin = TRANSPORTS[ipc].spins and placement.has_room_to_spin
        pool.launch(
            board,
            device_filter(pipes=TRANSPORTS[ipc].uses_pipes),
            cpu=placement.cpu,
            spare_cpus=placement.spares,
            may_spin=may_spin,
        )
        found = os.sched_getaffinity(0)
        if placement.cpu is not None:
            os.sched_setaffinity(0, {placement.cpu})
        try:
            pool.connect(grants, now=clock.now, deadline_changed=_ignore)
            members = pool.members.values()
            yield Path([(pool.channel(member.device_type), member.devices) for member in members])
        finally:
            os.sched_setaffinity(0, found)


def measure(rounds: int, times: int) -> dict[str, dict[str, float]]:
    """Configuration → title of an access → median of the ns that it takes. The rounds are interleaved.

    UsageError without the compiled hot path. Raises SandboxError.
    """
    if not is_compiled():
        raise UsageError("--exit none measures the compiled hot path, and this is pure Python")
    samples: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for ipc in (NONE, *IPCS):
            with path_to(ipc) as path:
                for access in ACCESSES:
                    taken = samples.setdefault(ipc, {}).setdefault(access.title, [])
                    taken.append(path.time(access, times))
    return {ipc: {title: median(taken) for title, taken in rows.items()} for ipc, rows in samples.items()}


def tables(measured: Mapping[str, Mapping[str, float]]) -> list[Table]:
    """What kvmbox adds to an exit, and what follows from that for hosts with other exits."""
    heads = ("access", *measured)
    added = [
        (access.title, *(number(rows[access.title], "ns") for rows in measured.values()))
        for access in ACCESSES
    ]
    read = ACCESSES[0].title
    predicted = [
        (f"{exit_us:g} µs", *(number(1000 * exit_us + rows[read], "ns") for rows in measured.values()))
        for exit_us in PREDICTED
    ]
    return [
        Table("kvmbox alone, without an exit", heads, tuple(added), remarks=False),
        Table(
            f"prediction, not measured: {read}, on a host whose bare exit takes so long",
            ("bare exit", *measured),
            tuple(predicted),
            remarks=False,
        ),
    ]
