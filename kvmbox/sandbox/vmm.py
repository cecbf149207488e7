"""The VMM confines itself, once everything that a run needs is open.

    scope.OWN.take()                             # before the spawner is started, see there
    confinement = confine_main(keep=…, spawner_pidfd=…, without=…, require=…)
                                                 # main thread, before other threads start
    confine_vcpu(confinement)                    # first thing in each vCPU thread

Landlock and capabilities belong to threads and are inherited by those that are made later. So the main thread
takes them before any other thread is there. Its filter is given to all threads at once, and to those that
come; the vCPU thread adds one of its own, which is shorter (`vmm_policy`).

There is no way back. After `confine_main` nothing can be opened for writing, no program started, no socket
made; C extensions cannot be loaded, while Python's own modules and sources can be read, for tracebacks and
for what is imported late, and what `readable` names. Whoever wants to be able to do more afterwards, such as
a test runner, does not call it. What is open stays usable: /dev/kvm, the guest's streams, recordings, the
spawner's socket.

None of this is required by itself: a kernel without Landlock runs guests. What is missing is reported with
the reason, `require` makes it an error.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from kvmbox.base.errors import SandboxError
from kvmbox.jail import label, landlock, layers, linux, notify
from kvmbox.sandbox import scope
from kvmbox.sandbox.seccomp import bind, bound_to, filter_of, shipped

TRACEBACK_MODULES: Final = ("traceback", "linecache", "tokenize", "unicodedata")
"""What a traceback needs, as far as it may be a C extension somewhere."""

LEFT_OUT: Final = "left out on request"
PROC: Final = "/proc"
"""Pids of device processes, and whether a silent one is starved of CPU time, are read there."""


class Confinement:
    """What the VMM has taken: a mask of layers, and by name why there are no others."""

    def __init__(self) -> None:
        self.applied = 0
        self.missing: dict[str, str] = {}
        self.vcpu_filter = b""


def confine_main(
    *,
    keep: int = 0,
    spawner_pidfd: int | None = None,
    without: int = 0,
    require: int = 0,
    tracebacks: bool = False,
    readable: Sequence[str] = (),
    accepts: bool = False,
    disks: bool = False,
) -> Confinement:
    """Confine the calling process, for good; call it in the main thread, the only one.

    `keep` is a mask of capabilities to keep, because device processes could not be ended or moved
    without (`SpawnerClient.capabilities_needed`). `spawner_pidfd` is the only descriptor by which a signal
    may be sent (`SpawnerClient.pin`). `without` and `require` are masks of layers; with `tracebacks`
    modules that print them are loaded now. What is in the directories `readable` can still be read. `accepts`
    says that somebody may connect to a socket that listens, `disks` that the guest has some.
    Raises SandboxError if a layer that is required cannot be had.
    """
    if tracebacks:
        for name in TRACEBACK_MODULES:
            __import__(name)
    confinement = Confinement()
    # Now, as a filter that is not shipped needs libseccomp, which a confined process could not load.
    filters = [] if without & layers.VMM_SECCOMP else _filters(accepts=accepts, disks=disks)
    steps: tuple[tuple[int, Callable[[], None]], ...] = (
        (layers.VMM_SCOPES, _scope),
        (layers.VMM_CAPABILITIES, lambda: linux.drop_capabilities(keep)),
        (layers.VMM_LANDLOCK, lambda: _landlock(readable)),
        (layers.VMM_LABEL, lambda: label.take("vmm", machine=os.getpid())),
        (layers.VMM_SECCOMP, lambda: _filter(confinement, spawner_pidfd, *filters)),
    )
    for layer, step in steps:
        name = layers.VMM_NAMES[layer]
        if without & layer:
            confinement.missing[name] = LEFT_OUT
            continue
        try:
            step()
        except OSError as error:
            confinement.missing[name] = str(error.args[-1])
        else:
            confinement.applied |= layer
    lacking = require & layers.VMM & ~confinement.applied
    if lacking:
        reasons = [f"{name} ({confinement.missing[name]})" for name in layers.names(lacking)]
        raise SandboxError(f"sandbox layer missing: {', '.join(reasons)}")
    return confinement


def confine_vcpu(confinement: Confinement) -> None:
    """Give the calling thread the vCPU thread's filter, if the VMM has filters at all. Raises OSError."""
    if confinement.applied & layers.VMM_SECCOMP:
        notify.install_plain_filter(confinement.vcpu_filter, every_thread=False)


def _filters(*, accepts: bool, disks: bool) -> list[bytes]:
    """The filter of the main thread, and that of the vCPU threads. Raises SandboxError."""
    kind = "-disk" if disks else ""
    found = [shipped(f"vmm-{thread}{kind}") for thread in ("main", "vcpu")]
    if None not in found and not accepts:
        return [bpf for bpf in found if bpf is not None]
    from kvmbox.sandbox.vmm_policy import policies

    return [filter_of(policy) for policy in policies(accepts=accepts, disks=disks)]


def _filter(
    confinement: Confinement, spawner_pidfd: int | None, main_filter: bytes, vcpu_filter: bytes
) -> None:
    values = bound_to(os.getpid(), spawner_pidfd)
    bpf = bind(main_filter, values)
    confinement.vcpu_filter = bind(vcpu_filter, values)
    linux.forbid_new_privileges()
    notify.install_plain_filter(bpf, every_thread=True)


def _scope() -> None:
    if not scope.OWN.taken:
        raise OSError(scope.OWN.missing)


def _landlock(readable: Sequence[str]) -> None:
    version = landlock.abi()
    if version == 0:
        raise OSError(landlock.why_missing(version))
    others = threading.active_count() - 1
    linux.forbid_new_privileges()
    landlock.allow_reading(version, [*readable_directories(), *readable])
    if others and version < landlock.EVERY_THREAD_ABI:
        raise OSError(f"{others} of its threads started before, and have none of it")


@lru_cache(maxsize=1)
def readable_directories(path: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Where Python finds its modules, and /proc: sorted, without what is below another of them. Found once.

    Of the search path only directories of packages count. The script's own and the working directory may hold
    anything.
    """
    modules = (os.path.dirname(__file__), os.__file__)
    found = {PROC, *(os.path.dirname(os.path.realpath(file)) for file in modules if file)}
    for entry in sys.path if path is None else path:
        if os.path.basename(entry) in ("site-packages", "dist-packages", "lib-dynload"):
            found.add(os.path.realpath(entry))
    return tuple(one for one in sorted(found) if not any(one.startswith(f"{other}/") for other in found))
