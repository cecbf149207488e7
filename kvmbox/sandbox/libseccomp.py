"""From a policy to BPF, by libseccomp.

A run uses filters that were compiled ahead (`seccomp`), and loads neither this module nor the library: to
find and load that takes a tenth of a short run. No device process maps it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import BinaryIO, Final

from kvmbox.base.errors import SandboxError
from kvmbox.sandbox.policy import WORD, Action, Policy

HIGHEST_PRIORITY: Final = 255  # libseccomp tests these calls first: rules stand in the order of use
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


def _written_by(export: Callable[[BinaryIO], None]) -> bytes:
    """What an export function of libseccomp writes into a file."""
    with os.fdopen(os.memfd_create("kvmbox-bpf", os.MFD_CLOEXEC), "r+b") as file:
        export(file)
        file.seek(0)
        return file.read()
