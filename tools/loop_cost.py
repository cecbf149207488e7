#!/usr/bin/env python3
"""What an exit costs in Python with warm caches: the VMM's share of `--sandbox none`, without a guest.

The run loop reads the UART's line status register through the real channel and model. KVM_RUN is replaced by
the cheapest call to /dev/kvm that there is, or by nothing. What an exit of a guest costs beyond this and the
bare exit (`kvmbox bench`: none, floor) is caches, TLB and branch predictors that KVM_RUN has left cold.

Run it with a Python that has kvmbox; the machine should have nothing else to do.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import cast

from kvmbox.base import layout
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.kvm import ioctl, uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.bus.routing import Bus, Mapping
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.transport.direct import direct_channels
from kvmbox.run.vcpu.run_loop import VcpuLoop
from kvmbox.run.vcpu.run_state import VcpuControl

DATA = 0x1000  # where kvm_run says that the data of a port exit lies
EXITS = 200_000
ROUNDS = 7


class ReplayedExit:
    """A vCPU whose every exit is the same IN from the line status register."""

    def __init__(self, enter: Callable[[], int]) -> None:
        page = memoryview(bytearray(0x3000))
        self.bytes, self.words32, self.words64 = page, page.cast("I"), page.cast("Q")
        self.words32[2] = uapi.KVM_EXIT_IO
        size_and_count = 1 << 8 | 1 << 32
        self.words64[4] = uapi.KVM_EXIT_IO_IN | size_and_count | (layout.COM_PORTS["COM1"] + 5) << 16
        self.words64[5] = DATA
        self.enter = enter

    def kick(self) -> None:
        """Nothing to kick: `enter` returns at once."""

    clear_kick = kick


def devices() -> Bus:
    """A bus with COM1, whose model is called directly."""
    options = BoardOptions(serial_ports=("COM1",), rtc_base=0, memory_size=1 << 20)
    board = [device for device in pc_board(options) if device.name == "COM1"]
    clock = GuestClock()
    clock.release()
    grants = {device.name: Grants(device.name, irq_lines=[lambda _level, _count: None]) for device in board}
    ((channel, _),) = direct_channels(board, grants, now=clock.now, deadline_changed=lambda *_: None)
    bus = Bus(16)
    proxy = DeviceProxy(channel, 0, "COM1", frozenset())
    bus.attach(Mapping(layout.COM_PORTS["COM1"], layout.UART_PORT_COUNT, proxy, direct=proxy))
    return bus


def per_exit(enter: Callable[[], int], ports: Bus) -> float:
    """Nanoseconds per exit of a loop that runs for about half a second."""
    vcpu = ReplayedExit(enter)
    control = VcpuControl(VcpuLoop.attention_kind(), vcpu.kick, lambda: None)
    loop = VcpuLoop(control, cast(Vcpu, vcpu), ports, Bus(52), read_memory=lambda _: None)
    timer = threading.Timer(0.5, control.leave)
    timer.start()
    began = time.perf_counter_ns()
    loop.run()
    spent = time.perf_counter_ns() - began
    timer.join()
    return spent / loop.routes.exit_count


def per_call(call: Callable[[], int]) -> float:
    """Nanoseconds per call, without the loop around it."""
    numbers = range(EXITS)
    began = time.perf_counter_ns()
    for _ in numbers:
        call()
    spent = time.perf_counter_ns() - began
    began = time.perf_counter_ns()
    for _ in numbers:
        pass
    return (spent - (time.perf_counter_ns() - began)) / EXITS


def main() -> int:
    """Print medians in nanoseconds; status 4 without /dev/kvm."""
    try:
        descriptor = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        sys.stderr.write(f"{sys.argv[0]}: cannot open /dev/kvm: {error.strerror}\n")
        return 4
    cheapest = partial(
        ioctl.raw_ioctl,
        ctypes.c_int(descriptor),
        ctypes.c_ulong(ioctl.KVM_GET_API_VERSION),
        ctypes.c_void_p(None),
    )
    nothing = int
    ports = devices()
    measured = {
        "the call: ctypes, GIL, system call": lambda: per_call(cheapest),
        "loop, channel, model": lambda: per_exit(nothing, ports) - per_call(nothing),
        "both": lambda: per_exit(cheapest, ports),
    }
    samples: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(ROUNDS):
        for name, measure in measured.items():
            samples[name].append(measure())
    for name, values in samples.items():
        print(f"{statistics.median(values):6.0f} ns  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
