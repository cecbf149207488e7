"""Facts of the host that numbers mean nothing without."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from kvmbox import __version__
from kvmbox.base.compiled import describe
from kvmbox.base.errors import KvmError
from kvmbox.kvm.system import Kvm
from kvmbox.tools.bench.floor import NativeCode
from kvmbox.tools.bench.peer import version as qemu_version

# rdtsc; shl rdx, 32; or rax, rdx; ret
_RDTSC: Final = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_CALIBRATION_NS: Final = 50_000_000


def allowed_cpus() -> list[int]:
    """The CPUs that this process may run on, in order."""
    return sorted(os.sched_getaffinity(0))


def calibrate_tsc() -> int:
    """kHz of this host's time-stamp counter, against the monotonic clock."""
    code = NativeCode(_RDTSC)
    try:
        started, first = time.monotonic_ns(), code.call(None)
        while time.monotonic_ns() - started < _CALIBRATION_NS:
            pass
        ended, last = time.monotonic_ns(), code.call(None)
    finally:
        code.close()
    return int(last - first) * 1_000_000 // (ended - started)


def facts(*, peer: bool = False) -> dict[str, str | int]:
    """Host, kernel, KVM backend, versions. KvmError, with a hint, where there is no /dev/kvm that works."""
    with Kvm.open() as kvm:
        backend = kvm.backend()
        try:
            with kvm.create_vm() as vm, vm.create_vcpu(0) as vcpu:
                tsc = vcpu.tsc_khz()
        except KvmError:
            tsc = 0
    found: dict[str, str | int] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "kvmbox": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "hot_path": describe(),
        "kernel": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "kvm_backend": backend,
        "tsc_khz": tsc or calibrate_tsc(),
        "load": f"{os.getloadavg()[0]:.2f}",
    }
    if peer:
        found["qemu"] = qemu_version()
    return found


def processor() -> str:
    """The processor's name, or the architecture."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
