"""Process titles: what ps, top and pgrep show for a process that never called exec under that name.

Two places hold a name. `comm` (15 bytes) is set by prctl. The command line is the memory in which the
kernel put argv, [arg_start, arg_end) of /proc/PID/stat: a process may overwrite it. If the last byte of
that region is not NUL, /proc/PID/cmdline gives the text up to the first NUL only, instead of the whole
region (fs/proc/base.c, get_mm_cmdline); so the title is written at the start, zeros behind it, and a
one at the very end.
"""

from __future__ import annotations

import ctypes

from kvmbox.jail import linux

ARG_START_FIELD = 48  # proc_pid_stat(5), counted from 1
ARG_END_FIELD = 49
COMM_SIZE = 15
MINIMUM_REGION = 32


class ProcessTitle:
    """The title of the calling process; made before Landlock hides /proc, valid in forked children too."""

    def __init__(self, start: int, end: int) -> None:
        self._start = start
        self._end = end

    @classmethod
    def find(cls) -> ProcessTitle:
        """Locate the command line of this process. Without /proc only `comm` will be set."""
        try:
            with open("/proc/self/stat", "rb") as file:
                text = file.read()
        except OSError:
            return cls(0, 0)
        # Field 2 is the name in parentheses, which may itself hold blanks and parentheses.
        fields = text[text.rindex(b")") + 2 :].split()
        if len(fields) <= ARG_END_FIELD - 3:
            return cls(0, 0)
        return cls(int(fields[ARG_START_FIELD - 3]), int(fields[ARG_END_FIELD - 3]))

    def set(self, title: str) -> None:
        """Show `title` as the name and the command line; longer than they have room for, it is cut."""
        encoded = title.encode()
        # SAFETY: PR_SET_NAME reads up to 16 bytes of a NUL-terminated buffer that lives until it returns.
        name = ctypes.create_string_buffer(encoded[:COMM_SIZE])
        linux.prctl(linux.PR_SET_NAME, ctypes.addressof(name), name="PR_SET_NAME")
        size = self._end - self._start
        if size < MINIMUM_REGION:
            return
        region = encoded[: size - 2].ljust(size - 1, b"\0") + b"\x01"
        # SAFETY: [start, end) is the argv area at the top of our own stack: mapped, writable, and of
        # exactly this size. CPython copied argv at start-up and does not look at it again.
        ctypes.memmove(self._start, region, size)
