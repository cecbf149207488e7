"""From a policy to BPF, and from a number to a name: what kvmbox needs of libseccomp.

It runs in the VMM only. Device processes get finished BPF, so that no libseccomp is mapped into them.

The filters are compiled ahead, into `filters.bin`, each beside the table that it was made from
(`tools/compile_policies.py`). That of a device process is used only while its table is, number by number,
what `policy` says; otherwise libseccomp compiles the policy anew. So a run needs no libseccomp, and an edited
policy is never ignored. The VMM's own are found by name, and tests compare them with the tables.
libseccomp's binding is imported late: to find and load the library takes a tenth of a short run.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import BinaryIO, Final

from kvmbox.errors import SandboxError
from kvmbox.sandbox.policy import DEVICE_POLICY, DEVICE_POLICY_PIPES, WORD, Action, Policy

BPF_INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k
BPF_JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
HIGHEST_PRIORITY: Final = 255  # libseccomp tests these calls first: rules stand in the order of use

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

LIBSECCOMP_HINT: Final = "install it, e.g. apt-get install libseccomp2"


def load_libseccomp() -> ModuleType:
    """The module pyseccomp, or else libseccomp's own, which has the same names, and which distributions have.

    Raises SandboxError with a remedy where libseccomp is missing or too old.
    """
    problem: Exception | None = None
    for name in ("pyseccomp", "seccomp"):
        try:
            return import_module(name)
        except (ImportError, RuntimeError, OSError, AttributeError) as error:
            problem = problem or error
    raise SandboxError(f"cannot load libseccomp: {problem}", hint=LIBSECCOMP_HINT) from problem


def compile_policy(policy: Policy) -> bytes:
    """The policy as BPF: an array of struct sock_filter. Raises SandboxError."""
    return export(policy, "export_bpf")


def export(policy: Policy, method: str) -> bytes:
    """What `method` of libseccomp's filter, export_bpf or export_pfc, writes for `policy`.

    Raises SandboxError.
    """
    seccomp = load_libseccomp()
    try:
        rest = seccomp.NOTIFY if policy.default is Action.NOTIFY else seccomp.ERRNO(errno.ENOSYS)
        built = seccomp.SyscallFilter(rest)
        built.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
        for index, rule in enumerate(policy.rules):
            comparisons = [
                seccomp.Arg(condition.argument, seccomp.EQ, condition.value)
                if condition.mask == WORD
                else seccomp.Arg(condition.argument, seccomp.MASKED_EQ, condition.mask, condition.value)
                for condition in rule.conditions
            ]
            built.add_rule_exactly(seccomp.ALLOW, rule.number, *comparisons)
            built.syscall_priority(rule.number, HIGHEST_PRIORITY - index)
        return _written_by(getattr(built, method))
    except OSError as error:
        raise SandboxError(
            f"libseccomp cannot build the '{policy.name}' filter: {error.strerror}",
            hint="libseccomp 2.5 or later is needed",
        ) from error


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


def shipped(name: str) -> bytes | None:
    """The filter that kvmbox ships under this name, or None. Tests see to it that it is the policy's.

    For the VMM of a run, which so does not load the tables of `vmm_policy`.
    """
    beginning = f"({name!r}, ".encode()
    return next((bpf for made_from, bpf in _shipped() if made_from.startswith(beginning)), None)


def source(policy: Policy) -> bytes:
    """All of the policy that decides its filter, and its name."""
    return repr((policy.name, policy.default.value, policy.table())).encode()


def filter_of(policy: Policy) -> bytes:
    """The filter of `policy`, as BPF: the one that kvmbox ships, or compiled anew. Raises SandboxError."""
    return compiled_ahead(policy) or compile_policy(policy)


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


def _written_by(export: Callable[[BinaryIO], None]) -> bytes:
    """What an export function of libseccomp writes into a file."""
    with os.fdopen(os.memfd_create("kvmbox-bpf", os.MFD_CLOEXEC), "r+b") as file:
        export(file)
        file.seek(0)
        return file.read()


def syscall_name(number: int) -> str:
    """The name of an x86-64 system call, or 'system call N' where it has none that we know."""
    from kvmbox.sandbox.syscall_names import NAMES  # read when there is something to name

    return NAMES.get(number, f"system call {number}")
