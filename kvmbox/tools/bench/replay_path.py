"""A run loop whose exits come from memory, in front of real channels: see `replayed`."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from typing import Any, cast

from kvmbox.base.compiled import compiled
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.bus.routing import Bus, Mapping
from kvmbox.run.vcpu.coalesced_ring import CoalescedRing
from kvmbox.run.vcpu.late_writes import LateWrites
from kvmbox.run.vcpu.run_state import VcpuControl
from kvmbox.tools.bench.replay_script import COM1, Access


class _Vcpu:
    """The mapping of a vCPU that nobody runs, and room for output that is thrown away."""

    def __init__(self) -> None:
        self.bytes = memoryview(bytearray(3 * 4096))
        self.words32, self.words64 = self.bytes.cast("I"), self.bytes.cast("Q")

    def fileno(self) -> int:
        return 0  # never used: the loop replays its exits

    def enter(self) -> int:
        raise AssertionError("nobody runs it")

    def nothing(self, _thread: int = 0) -> None:
        """No kick, nothing to clear, and nobody to wait for."""

    kick = clear_kick = postpone = wait_for_room = nothing


class Path:
    """The VMM's path from exits to the devices of `channels`, by device type and in index order. `late` hears
    whose writes may be late.
    """

    def __init__(self, channels: Sequence[tuple[Any, Sequence[DeviceSpec]]], late: LateWrites) -> None:
        self._ports = Bus(16)
        vcpu = _Vcpu()
        zones: dict[int, tuple[DeviceProxy, int]] = {}
        latches: set[int] = set()
        for channel, devices in channels:
            for index, device in enumerate(devices):
                proxy = DeviceProxy.of(channel, index, device)
                for found in device.ports:
                    self._ports.attach(Mapping(found.first, found.count, proxy, found.offset, direct=proxy))
                latches.update(device.latches)
                for port in (*device.coalesced, *([COM1] if device.name == "COM1" else [])):
                    mapping = self._ports.find(port)
                    assert mapping is not None
                    zones[port] = proxy, mapping.register(port)
        ring_kind: type[CoalescedRing] = compiled("loop", "CompiledRing")
        ring = ring_kind(vcpu.words64, vcpu.words32, vcpu.bytes, zones, room=vcpu, latches=latches)
        late.attach(cast(Any, None), ring)  # the script says what KVM coalesces
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
        made = self.play(access, times)
        return (time.perf_counter_ns() - began) / made

    def play(self, access: Access, times: int) -> int:
        """Make `access` so many times, after what comes before it. Return how often it was made."""
        rounds = times // access.units or 1
        for exits, count in ((access.before, 1), (access.exits, rounds)):
            script = array("Q", [word for pair in exits for word in pair])
            self._loop.replays(script, count, self._leave)
            self._loop.run()
        return rounds * access.units
