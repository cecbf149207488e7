"""The sandbox layers that this host supports: one line per layer, with a remedy. For `kvmbox doctor`.

Nothing is changed in the calling process: namespaces and the user id are tried in a process made for that.
A probe asks the kernel; it does not read version numbers.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvmbox.base.errors import SandboxError
from kvmbox.jail import identity, landlock, layers, linux, namespaces, notify
from kvmbox.sandbox.purposes import PURPOSES
from kvmbox.sandbox.seccomp import device_filter

LANDLOCK_REMEDY: Final = "enable Landlock: CONFIG_SECURITY_LANDLOCK, and landlock in the lsm= boot parameter"
ROOT_REMEDY: Final = "only root can change its user id; the other layers hold without"
USER_NAMESPACE_REMEDY: Final = (
    "allow user namespaces: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and "
    "kernel.apparmor_restrict_unprivileged_userns, or the container's seccomp profile"
)
LABEL_REMEDY: Final = (
    "run Linux 6.8 or later with AppArmor or SELinux, and, as root, load what kvmbox policy --format "
    "apparmor (with apparmor_parser -r) or selinux (with semodule -i) writes"
)
SCOPES_SINCE: Final = "6.12"
NAMESPACE_REMEDY: Final = "run a kernel that has it, in a container that allows it"

# Ends in isolation, two processes down, so that even PID 1 of the trial is reaped before this one exits.
_TRIAL: Final = """
import os, sys
sys.path.append({root!r})
from kvmbox.jail import namespaces
if os.fork() == 0:
    isolation = namespaces.isolate(os.getppid(), 0, namespaces.Stage(os.getppid(), lambda pid: None))
    lines = [str(isolation.applied)] + [f"{{bit}} {{reason}}" for bit, reason in isolation.reasons.items()]
    os.write(1, "\\n".join(lines).encode())
    os._exit(0)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""
_VMM_TRIAL: Final = """
import os, sys
sys.path.append({root!r})
from kvmbox.jail import layers
from kvmbox.sandbox import scope, vmm
scope.OWN.take()
confinement = vmm.confine_main()
lines = [str(confinement.applied)]
lines += [f"{{bit}} {{confinement.missing.get(name, '')}}" for bit, name in layers.VMM_NAMES.items()]
os.write(1, "\\n".join(lines).encode())
"""
_LABEL_TRIAL: Final = """
import os, sys
sys.path.append({root!r})
from kvmbox.jail import label, lock_up
reasons = {{}}
lines = [str(lock_up.take_label(reasons, "uart", label.ANY_DEVICE))]
lines += [f"{{bit}} {{reason}}" for bit, reason in reasons.items()]
os.write(1, "\\n".join(lines).encode())
"""
_TRIAL_SECONDS: Final = 10


Attempt = Callable[[str], tuple[int, dict[int, str]]]
"""Runs code in a process of its own: the mask of what it got, and by bit why not the others."""


@dataclass(frozen=True, slots=True)
class LayerStatus:
    """Whether a layer is available here. `remedy` is what to do about it, None where it is available."""

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


def probe(attempt: Attempt | None = None) -> list[LayerStatus]:
    """The state of every layer, in the order of the tables of `layers`. Never raises.

    `attempt` is how a process tries what only a process of its own can (`attempt_in_a_process`).
    """
    attempt = attempt or attempt_in_a_process
    found = {bit: _PROBES.get(bit, _always)() for bit in layers.NAMES if not layers.ISOLATION & bit}
    found |= _findings(layers.ISOLATION, attempt(_TRIAL))
    found |= _findings(layers.VMM, attempt(_VMM_TRIAL))
    found |= _findings(layers.LABEL, attempt(_LABEL_TRIAL))
    return [
        LayerStatus(
            name,
            PURPOSES[bit],
            bool(layers.REQUIRED & bit),
            found[bit].available,
            found[bit].detail,
            found[bit].remedy,
        )
        for bit, name in (layers.NAMES | layers.VMM_NAMES).items()
    ]


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


def attempt_in_a_process(code: str) -> tuple[int, dict[int, str]]:
    """Run `code` in a process of its own: the mask of what it got, and by bit why not the others."""
    code = code.format(root=str(Path(__file__).parents[2].absolute()))
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            env={},
            timeout=_TRIAL_SECONDS,
        )
        first, *lines = done.stdout.splitlines()
        reasons = {int(bit): reason for bit, _, reason in (line.partition(" ") for line in lines)}
        return int(first), reasons
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return 0, dict.fromkeys((*layers.NAMES, *layers.VMM_NAMES), f"could not be tried: {error}")


def _findings(mask: int, tried: tuple[int, dict[int, str]]) -> dict[int, _Finding]:
    applied, reasons = tried
    return {
        bit: _Finding(True, "available")
        if applied & bit
        else _Finding(False, reasons.get(bit, "not told"), _remedy(bit, reasons.get(bit, "")))
        for bit in (*layers.NAMES, *layers.VMM_NAMES)
        if mask & bit
    }


def _remedy(bit: int, reason: str) -> str:
    if bit == layers.VMM_LANDLOCK:
        return LANDLOCK_REMEDY
    if bit & (layers.LABEL | layers.VMM_LABEL):
        return LABEL_REMEDY
    if bit == layers.VMM_SCOPES:
        return f"run Linux {SCOPES_SINCE} or later, with Landlock"
    if bit & layers.VMM:
        return NAMESPACE_REMEDY
    if reason == identity.NOT_ROOT:
        return ROOT_REMEDY
    if bit == layers.USER_NS:
        return USER_NAMESPACE_REMEDY
    if reason == identity.FEW_IDS:
        return f"map user ids {identity.FIRST_ID} and up in the container"
    if reason == namespaces.NO_WAY_IN:
        return f"as for {layers.NAMES[layers.USER_NS]}"
    return NAMESPACE_REMEDY


_PROBES: Final = {
    layers.SECCOMP: _seccomp,
    layers.CLOSED_DESCRIPTORS: _closed_descriptors,
    layers.LANDLOCK: _landlock(layers.LANDLOCK, "5.13"),
    layers.LANDLOCK_NET: _landlock(layers.LANDLOCK_NET, "6.7"),
    layers.LANDLOCK_SCOPES: _landlock(layers.LANDLOCK_SCOPES, SCOPES_SINCE),
}
