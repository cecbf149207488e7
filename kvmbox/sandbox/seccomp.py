"""Filters that were compiled ahead, and names of system calls.

They are used in the VMM only. Device processes get finished BPF.

The filters are compiled ahead, into `filters.bin`, each beside the table that it was made from
(`tools/compile_policies.py`). That of a device process is used only while its table is, number by number,
what `policy` says; otherwise libseccomp compiles the policy anew. So a run needs no libseccomp, and an edited
policy is never ignored. The VMM's own are found by name, and tests compare them with the tables.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from kvmbox.sandbox.policy import DEVICE_POLICY, DEVICE_POLICY_PIPES, Policy

BPF_INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k
BPF_JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K

SHIPPED: Final = os.path.join(os.path.dirname(__file__), "filters.bin")
SIZES: Final = struct.Struct("<II")
"""In front of each filter of `SHIPPED`: the sizes of its source and of itself. Both follow."""

# Placeholders: neither can be a pid (2**22 at most), or a descriptor.
OWN_PID: Final = 0x4B56_0001
"""Stands for the pid of the process that installs the filter."""
SPAWNER_PIDFD: Final = 0x4B56_0002
"""Stands for the descriptor by which it may signal the spawner."""
NO_DESCRIPTOR: Final = 0xFFFF_FFFF
"""In place of that descriptor where there is no spawner."""


def _shipped() -> Iterator[tuple[bytes, bytes]]:
    """The source of each filter in `SHIPPED`, and the filter."""
    with open(SHIPPED, "rb") as file:
        while sizes := file.read(SIZES.size):
            made_from, bpf = map(file.read, SIZES.unpack(sizes))
            yield made_from, bpf


def compiled_ahead(policy: Policy) -> bytes | None:
    """The filter that kvmbox ships for exactly this policy, or None."""
    wanted = source(policy)
    return next((bpf for made_from, bpf in _shipped() if made_from == wanted), None)


@lru_cache(maxsize=4)
def shipped(name: str) -> bytes | None:
    """The filter that kvmbox ships under this name, or None. Tests see to it that it is the policy's.

    For the VMM of a run, which so does not load the tables of `vmm_policy`. Warm boots have it from their
    template.
    """
    beginning = f"({name!r}, ".encode()
    return next((bpf for made_from, bpf in _shipped() if made_from.startswith(beginning)), None)


def source(policy: Policy) -> bytes:
    """All of the policy that decides its filter, and its name."""
    return repr((policy.name, policy.default.value, policy.table())).encode()


def filter_of(policy: Policy) -> bytes:
    """The filter of `policy`, as BPF: the one that kvmbox ships, or compiled anew. Raises SandboxError."""
    ahead = compiled_ahead(policy)
    if ahead is not None:
        return ahead
    from kvmbox.sandbox.libseccomp import compile_policy

    return compile_policy(policy)


def device_filter(*, pipes: bool = False) -> bytes:
    """The filter of device processes, as BPF. Raises SandboxError.

    `pipes`: requests and replies have a descriptor each, CHANNEL_FD and REPLY_FD.
    """
    return filter_of(DEVICE_POLICY_PIPES if pipes else DEVICE_POLICY)


def bind(bpf: bytes, values: Mapping[int, int]) -> bytes:
    """The filter with its placeholders replaced: each comparison with a key of `values` is one with its
    value.

    A placeholder is a number that no call of ours has as an argument. So a filter can be compiled ahead
    that is about the process that installs it: which pid may be signalled, say. One that was forgotten
    allows nothing.
    """
    bound = bytearray(bpf)
    for at in range(0, len(bpf), BPF_INSTRUCTION.size):
        code, true, false, k = BPF_INSTRUCTION.unpack_from(bpf, at)
        if code == BPF_JUMP_IF_EQUAL and k in values:
            BPF_INSTRUCTION.pack_into(bound, at, code, true, false, values[k])
    return bytes(bound)


def bound_to(pid: int, spawner_pidfd: int | None) -> dict[int, int]:
    """What stands in for the placeholders: in process `pid`, which signals its spawner by that descriptor."""
    return {OWN_PID: pid, SPAWNER_PIDFD: NO_DESCRIPTOR if spawner_pidfd is None else spawner_pidfd}


def syscall_name(number: int) -> str:
    """The name of an x86-64 system call, or 'system call N' where it has none that we know."""
    from kvmbox.sandbox.syscall_names import NAMES  # read when there is something to name

    return NAMES.get(number, f"system call {number}")
