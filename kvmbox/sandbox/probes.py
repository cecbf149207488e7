"""What of the sandbox this host can give: one line per layer, each with a remedy. For `kvmbox doctor`.

Nothing is changed in the calling process. A probe asks the kernel; it does not read version numbers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kvmbox.errors import SandboxError
from kvmbox.sandbox import landlock, layers, linux, notify
from kvmbox.sandbox.seccomp import device_filter

LANDLOCK_REMEDY: Final = "enable Landlock: CONFIG_SECURITY_LANDLOCK, and landlock in the lsm= boot parameter"


@dataclass(frozen=True, slots=True)
class LayerStatus:
    """Whether a layer can be had here. `remedy` is what to do about it, None where it is available."""

    name: str
    purpose: str
    required: bool
    available: bool
    detail: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class _Finding:
    available: bool
    detail: str
    remedy: str | None = None


def probe() -> list[LayerStatus]:
    """The state of every layer, in the order of `layers.NAMES`. Never raises."""
    statuses = []
    for bit, name in layers.NAMES.items():
        finding = _PROBES.get(bit, _always)()
        statuses.append(
            LayerStatus(
                name,
                layers.PURPOSES[bit],
                bool(layers.REQUIRED & bit),
                finding.available,
                finding.detail,
                finding.remedy,
            )
        )
    return statuses


def _always() -> _Finding:
    return _Finding(True, "every supported kernel has it")


def _seccomp() -> _Finding:
    try:
        bpf = device_filter()
    except SandboxError as error:
        return _Finding(False, str(error), error.hint)
    if not notify.notification_available():
        return _Finding(False, "no user notification", "run Linux 5.5 or later with CONFIG_SECCOMP_FILTER")
    return _Finding(True, f"filter of {len(bpf) // notify.INSTRUCTION_SIZE} instructions, with notification")


def _closed_descriptors() -> _Finding:
    try:
        # No process has descriptors up there.
        linux.close_range(linux.ALL_DESCRIPTORS - 1)
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        known = error.errno == errno.ENOSYS
        remedy = "run Linux 5.9 or later" if known else "let the container's seccomp profile allow it"
        return _Finding(False, str(error), remedy)
    return _Finding(True, "close_range")


def _landlock(bit: int, since: str) -> Callable[[], _Finding]:
    def examine() -> _Finding:
        version = landlock.abi()
        if landlock.layers_of(version) & bit:
            return _Finding(True, f"ABI {version}")
        if version == 0:
            return _Finding(False, "no Landlock", LANDLOCK_REMEDY)
        return _Finding(False, f"Landlock ABI {version} does not have it", f"run Linux {since} or later")

    return examine


_PROBES: Final = {
    layers.SECCOMP: _seccomp,
    layers.CLOSED_DESCRIPTORS: _closed_descriptors,
    layers.LANDLOCK: _landlock(layers.LANDLOCK, "5.13"),
    layers.LANDLOCK_NET: _landlock(layers.LANDLOCK_NET, "6.7"),
    layers.LANDLOCK_SCOPES: _landlock(layers.LANDLOCK_SCOPES, "6.12"),
}
