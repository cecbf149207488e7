"""Another process, held by ptrace, whose first thread makes system calls for its tracer.

What it calls is what code of an attacker in it could call: the kernel sees the same process, with the same
filter, descriptors, memory and rights. It never runs on: its registers and a page of its data are lost.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

SEIZE: Final = 0x4206
INTERRUPT: Final = 0x4207
GETEVENTMSG: Final = 0x4201
SECCOMP_GET_FILTER: Final = 0x420C
GETREGS: Final = 12
SETREGS: Final = 13
SINGLESTEP: Final = 9
TRACED_CHILDREN: Final = 0x2 | 0x4 | 0x8 | 0x10
"""Of PTRACE_SETOPTIONS: stop at fork, vfork, clone and execve, and trace what is made."""
EXECUTED: Final = 4
"""The event of an execve."""
WALL: Final = 0x4000_0000
REGISTERS: Final = struct.Struct("<27Q")
R10, R9, R8, RAX, RDX, RSI, RDI, ORIG_RAX, RIP = 7, 8, 9, 10, 12, 13, 14, 15, 16
ARGUMENTS: Final = (RDI, RSI, RDX, R10, R8, R9)
NO_CALL: Final = (1 << 64) - 1
SYSCALL: Final = b"\x0f\x05"
PAGE: Final = 4096
PATIENCE_S: Final = 3.0
MOST_INSTRUCTIONS: Final = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


class Stopped(Exception):
    """A call did not come back: the message says how it ended."""


class Tracee:
    """See the module. A context manager; what it traces is killed at the end."""

    def __init__(self, pid: int) -> None:
        """Stop process `pid`. PermissionError if that is not allowed."""
        self.pid = pid
        self._registers = ctypes.create_string_buffer(REGISTERS.size)
        self._used = 0
        self._threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
        self._memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
        try:
            self._take()
        except BaseException:
            self.__exit__()
            raise

    def _take(self) -> None:
        for one in list(self._threads):
            try:
                self._stop(one)
            except ProcessLookupError:
                self._threads.remove(one)  # it has ended meanwhile
        self._request(GETREGS, 0, ctypes.addressof(self._registers))
        self._space = next(end - PAGE for _, end, rights in self.mappings() if rights.startswith("rw"))
        self._instruction = self._find_instruction()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._memory)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        for one in sorted(self._threads, reverse=True):  # the first one ends when all others were waited for
            with suppress(ChildProcessError):
                while not os.WIFSIGNALED(status := os.waitpid(one, WALL)[1]) and not os.WIFEXITED(status):
                    pass

    def _stop(self, thread: int) -> None:
        self._request(SEIZE, 0, TRACED_CHILDREN, thread=thread)
        self._request(INTERRUPT, thread=thread)
        self._wait(thread)

    def _request(self, request: int, address: int = 0, data: int = 0, *, thread: int = 0) -> int:
        # SAFETY: addresses are of buffers that outlive the call, of the size that the request has.
        result: int = _libc.ptrace(request, thread or self.pid, address, data)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"ptrace: {os.strerror(number)}")
        return result

    def _wait(self, thread: int) -> int:
        """The status of a thread when it stops or ends."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for one in (thread, *self._threads):  # all others end, and the first takes over, at an execve
                found, status = 0, 0
                with suppress(ChildProcessError):
                    found, status = os.waitpid(one, WALL | os.WNOHANG)
                if found and (one == thread or status >> 16 == EXECUTED):
                    return status
            time.sleep(0.001)
        raise Stopped("no answer")

    def mappings(self) -> list[tuple[int, int, str]]:
        """First and end address, and rights."""
        lines = Path(f"/proc/{self.pid}/maps").read_text().splitlines()
        found = [re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line) for line in lines if "vsyscall" not in line]
        return [(int(one[1], 16), int(one[2], 16), one[3]) for one in found if one is not None]

    def read(self, address: int, size: int) -> bytes:
        """Bytes of its memory; none where nothing can be read."""
        with suppress(OSError):
            return os.pread(self._memory, size, address)
        return b""

    def _find_instruction(self) -> int:
        for first, end, rights in self.mappings():
            if "x" in rights and (place := self.read(first, end - first).find(SYSCALL)) >= 0:
                return first + place
        raise Stopped("it has no system call instruction")

    def place(self, data: bytes) -> int:
        """Put bytes into its memory; where they are."""
        address = self._space + self._used
        os.pwrite(self._memory, data, address)
        self._used = (self._used + len(data) + 15 & ~15) % PAGE
        return address

    def call(self, number: int, *arguments: int | bytes) -> int:
        """Have it make a system call; bytes are placed, with a zero behind them.

        Its result, negative for an error. For a call that has made a process or become another program, 0:
        both are dead then. Raises Stopped.
        """
        values = list(REGISTERS.unpack(self._registers.raw))
        for register, argument in zip(ARGUMENTS, arguments, strict=False):
            value = self.place(argument + b"\0") if isinstance(argument, bytes) else argument
            values[register] = value & NO_CALL
        values[RAX], values[ORIG_RAX], values[RIP] = number, NO_CALL, self._instruction
        registers = ctypes.create_string_buffer(REGISTERS.pack(*values), REGISTERS.size)
        self._request(SETREGS, 0, ctypes.addressof(registers))
        self._request(SINGLESTEP)
        status = self._wait(self.pid)
        if os.WIFSIGNALED(status):
            raise Stopped("killed")
        if os.WIFEXITED(status):
            raise Stopped("it exits")
        if status >> 16:
            if status >> 16 != EXECUTED:
                self._end_child()
            os.kill(self.pid, signal.SIGKILL)
            return 0
        if os.WSTOPSIG(status) != signal.SIGTRAP:
            raise Stopped(signal.Signals(os.WSTOPSIG(status)).name)
        self._request(GETREGS, 0, ctypes.addressof(registers))
        result: int = REGISTERS.unpack(registers.raw)[RAX]
        return result - (1 << 64) if result >> 63 else result

    def _end_child(self) -> None:
        message = ctypes.c_ulong()
        self._request(GETEVENTMSG, 0, ctypes.addressof(message))
        with suppress(ProcessLookupError):
            os.kill(message.value, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(message.value, WALL)

    def filters(self, thread: int) -> list[bytes]:
        """The seccomp filters of a thread: arrays of struct sock_filter. OSError if the kernel tells none."""
        found: list[bytes] = []
        while True:
            program = ctypes.create_string_buffer(8 * MOST_INSTRUCTIONS)
            try:
                count = self._request(
                    SECCOMP_GET_FILTER, len(found), ctypes.addressof(program), thread=thread
                )
            except FileNotFoundError:
                return found
            found.append(program.raw[: 8 * count])
