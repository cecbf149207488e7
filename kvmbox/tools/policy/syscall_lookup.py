"""What a person calls a system call, by name or number, as a name and a number of x86-64.

The table of `syscall_names` needs no libseccomp. A call that is newer than the table is asked of libseccomp,
where that is installed and newer too.
"""

from __future__ import annotations

import difflib

from kvmbox.base.errors import SandboxError, UsageError
from kvmbox.sandbox.syscall_names import NAMES, NUMBERS


def number_of(text: str) -> tuple[str, int]:
    """Name and number of the system call that `text` names, by name or number.

    Raises UsageError, with close matches, for a name that is none of x86-64's.
    """
    try:
        number = int(text, 0)
    except ValueError:
        return text, _resolve(text)
    if not 0 <= number < 1 << 32:
        raise UsageError(f"'{text}' is not a system call number")
    return NAMES.get(number, f"system call {number}"), number


def _resolve(name: str) -> int:
    number = NUMBERS.get(name)
    if number is None:
        number = _ask_libseccomp(name)
    if number is None:
        close = difflib.get_close_matches(name, NUMBERS, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "give its number, if it is a new one"
        raise UsageError(f"x86-64 has no system call '{name}' that is known here", hint=hint)
    return number


def _ask_libseccomp(name: str) -> int | None:
    from kvmbox.sandbox.libseccomp import load_libseccomp

    try:
        seccomp = load_libseccomp()
        number: int = seccomp.resolve_syscall(seccomp.Arch.X86_64, name)
    except (SandboxError, ValueError, OSError):
        return None
    return number if number >= 0 else None  # negative: a call that other architectures have
