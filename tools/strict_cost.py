#!/usr/bin/env python3
"""Why strict seccomp is dearer than a filter: a ping-pong on one CPU, with and without RDTSC.

Mode 1 takes the time-stamp counter away from the process (Linux, arch/x86/kernel/process.c): a bit in CR4
that the kernel must write whenever it switches between a process that has the counter and one that has not.
The same can be had without seccomp, by prctl(PR_SET_TSC). If both cost the same, that is where it goes.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import statistics
import sys
import time

PR_SET_SECCOMP, SECCOMP_MODE_STRICT = 22, 1
PR_SET_TSC, PR_TSC_SIGSEGV = 26, 2
MODES = {
    "neither": None,
    "RDTSC faults": (PR_SET_TSC, PR_TSC_SIGSEGV),
    "strict": (PR_SET_SECCOMP, SECCOMP_MODE_STRICT),
}
ROUND_TRIPS = 20_000
ROUNDS = 9
FRAME = bytes(32)


def echo(descriptor: int, order: tuple[int, int] | None) -> None:
    """Answer each frame with itself, for ever: the parent kills. What is used is there before `order`."""
    read, write = os.read, os.write
    gc.disable()
    write(descriptor, read(descriptor, 64))
    if order is not None:
        # SAFETY: integers only, each as wide as the register that the kernel reads it from.
        prctl = ctypes.CDLL(None).prctl
        prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
        if prctl(*order, 0, 0, 0) != 0:
            os._exit(1)
    while True:
        write(descriptor, read(descriptor, 64))


def microseconds(order: tuple[int, int] | None) -> float:
    """Mean of a round trip to a new process. OSError if it has ended, as where it may not give up RDTSC."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        near.close()
        echo(far.fileno(), order)
    far.close()
    descriptor = near.fileno()
    try:
        for number in range(ROUND_TRIPS + 1000):
            if number == 1000:
                began = time.perf_counter_ns()
            os.write(descriptor, FRAME)
            if not os.read(descriptor, 64):
                raise OSError("the other process has ended")
        return (time.perf_counter_ns() - began) / ROUND_TRIPS / 1e3
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        near.close()


def main() -> int:
    """Print medians of interleaved rounds; status 1 if a mode cannot be had."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    samples: dict[str, list[float]] = {name: [] for name in MODES}
    try:
        for _ in range(ROUNDS):
            for name, order in MODES.items():
                samples[name].append(microseconds(order))
    except OSError as error:
        sys.stderr.write(f"{sys.argv[0]}: {name}: {error}\n")
        return 1
    base = samples["neither"]
    for name, values in samples.items():
        ratio = statistics.median(value / other for value, other in zip(values, base, strict=True))
        print(f"{statistics.median(values):6.1f} µs  {ratio:.2f}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
