"""Where models run, and how requests reach them: what was asked for, as this host can have it."""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.base.errors import SandboxError
from kvmbox.host.process.cpu_placement import Placement
from kvmbox.jail import layers, linux
from kvmbox.remote.process.device_pool import THREAD, Design
from kvmbox.remote.transport.ipc_table import AUTO, TRANSPORTS, ipc_of


def design_here(design: Design, require: int, placement: Placement, say: Callable[[str], None]) -> Design:
    """The design as this host can have it; what it gives up is said aloud. Raises SandboxError."""
    if design.without:
        left_out = ", ".join(layers.names(design.without))
        say(f"--without {left_out}: this run is contained less than others")
    if not design.has_processes:
        if require & ~layers.VMM:
            raise SandboxError(
                f"--require: there is no sandbox layer at all with --sandbox {design.sandbox}",
                hint="leave --sandbox out, or --require",
            )
        say(f"--sandbox {design.sandbox}: device models run in kvmbox itself, nothing contains them")
    elif design.seccomp == "off":
        say("--seccomp off: device processes may make any system call")
    elif design.seccomp == "strict" and linux.seccomp_mode() != linux.SECCOMP_MODE_DISABLED:
        raise SandboxError(
            "--seccomp strict is refused by the kernel: kvmbox itself runs under a seccomp filter",
            hint="a container runtime installs one; use --seccomp filter, or run outside of it",
        )
    if design.ipc == AUTO:
        can_spin = design.has_processes and placement.has_room_to_spin
        ipc = ipc_of(AUTO, can_spin=can_spin)
        return Design(design.sandbox, design.seccomp, ipc, design.without)
    spins = TRANSPORTS[design.ipc].spins
    if spins and design.has_processes and not placement.has_room_to_spin:
        say(f"--ipc {design.ipc}: there is no further CPU to spin on, so each request rings a doorbell")
    elif spins and design.sandbox == THREAD:
        say(
            f"--ipc {design.ipc}: threads of one interpreter cannot spin for each other: "
            "each request rings a doorbell"
        )
    return design
