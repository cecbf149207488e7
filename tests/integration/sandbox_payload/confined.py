"""A VMM that confines itself, as a program, and then tries things: for tests of `sandbox.vmm`.

Usage: confined.py DIRECTORY-OF-KVMBOX WITHOUT KEPT-CAPABILITIES [early-thread] [require] [scoped]. Prints
one line of JSON: what was applied, what is missing, and the errno of each attempt (0: it worked) of the main
thread and of a vCPU thread. Two children are there to be signalled: a stranger, and one in the spawner's
place.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable

TIOCSTI = 0x5412
KILL, TKILL, TGKILL, RT_SIGQUEUEINFO, IOCTL, FCNTL, PIDFD_SEND_SIGNAL = 62, 200, 234, 129, 16, 72, 424
F_SETFL, F_SETOWN, F_SETSIG, F_SETOWN_EX, F_NOTIFY = 4, 8, 10, 15, 1026
FIOSETOWN, SIOCSPGRP, FIOASYNC, TIOCSPGRP = 0x8901, 0x8902, 0x5452, 0x5410
O_ASYNC = 0o20000
F_OWNER_PID = 1


def attempt(action: Callable[[], object]) -> int:
    """The errno of `action`, 0 if it worked; -1 for an error that has none."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    except (ImportError, RuntimeError):
        return -1
    return 0


def start_thread() -> None:
    """A thread that does nothing."""
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def fork() -> None:
    """A child that exits at once."""
    if os.fork() == 0:
        os._exit(0)


def opened(path: str, flags: int) -> None:
    """Open and close."""
    os.close(os.open(path, flags))


def traced() -> None:
    """Format a traceback with the source lines of a module."""
    import traceback

    try:
        json.loads("{")
    except ValueError:
        if "self.scan_once" not in traceback.format_exc():
            raise RuntimeError("no source line") from None


def created() -> None:
    """A new file, removed again."""
    path = f"/tmp/kvmbox-confined-{os.getpid()}"
    opened(path, os.O_RDWR | os.O_CREAT)
    os.unlink(path)


def executable() -> None:
    """Memory to run code in."""
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()


def connected() -> None:
    """A socket of the Internet."""
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()


def paired() -> None:
    """A channel for a new device process."""
    for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET):
        end.close()


def piped() -> None:
    """The same, as a pipe."""
    for end in os.pipe():
        os.close(end)


def attempts(stranger: int, stranger_pidfd: int, spawner_pidfd: int) -> dict[str, int]:
    """Everything that is tried; `stranger` is the pid of a process that has nothing to do with this one."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def raw(number: int, *arguments: int) -> None:
        if libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(one) for one in arguments)) < 0:
            raise OSError(ctypes.get_errno(), "refused")

    def type_on_terminal() -> None:
        import fcntl

        fcntl.ioctl(0, TIOCSTI, b"x")

    def by_proc() -> None:
        directory = os.open(f"/proc/{stranger}", os.O_RDONLY | os.O_DIRECTORY)
        try:
            signal.pidfd_send_signal(directory, 0)
        finally:
            os.close(directory)

    def on_socket(number: int, operation: int, argument: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            raw(number, ours.fileno(), operation, argument)

    def by_reference(number: int, operation: int, data: bytes) -> None:
        buffer = ctypes.create_string_buffer(data)
        on_socket(number, operation, ctypes.addressof(buffer))

    def datagrams() -> None:
        for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM):
            end.close()

    own = struct.pack("=ii", F_OWNER_PID, stranger)
    return {
        "kill a stranger": attempt(lambda: raw(KILL, stranger, 0)),
        "stop a stranger": attempt(lambda: raw(KILL, stranger, signal.SIGSTOP)),
        "stop everybody": attempt(lambda: raw(KILL, 1 << 32 | stranger, signal.SIGSTOP)),
        "tkill a stranger": attempt(lambda: raw(TKILL, stranger, 0)),
        "tgkill a stranger": attempt(lambda: raw(TGKILL, stranger, stranger, 0)),
        "queue for a stranger": attempt(lambda: raw(RT_SIGQUEUEINFO, stranger, 0, 0)),
        "signal by pidfd": attempt(lambda: signal.pidfd_send_signal(stranger_pidfd, 0)),
        "signal by /proc": attempt(by_proc),
        "own by F_SETOWN": attempt(lambda: on_socket(FCNTL, F_SETOWN, stranger)),
        "own by F_SETOWN_EX": attempt(lambda: by_reference(FCNTL, F_SETOWN_EX, own)),
        "own by FIOSETOWN": attempt(lambda: by_reference(IOCTL, FIOSETOWN, own[4:])),
        "own by SIOCSPGRP": attempt(lambda: by_reference(IOCTL, SIOCSPGRP, own[4:])),
        "choose the signal": attempt(lambda: on_socket(FCNTL, F_SETSIG, signal.SIGKILL)),
        "signals by F_SETFL": attempt(lambda: on_socket(FCNTL, F_SETFL, O_ASYNC)),
        "signals by FIOASYNC": attempt(lambda: by_reference(IOCTL, FIOASYNC, own[:4])),
        "datagram socket": attempt(datagrams),
        "signal the spawner": attempt(lambda: signal.pidfd_send_signal(spawner_pidfd, signal.SIGCONT)),
        "tgkill ourselves": attempt(lambda: raw(TGKILL, os.getpid(), threading.get_native_id(), 0)),
        "descriptor flags": attempt(lambda: on_socket(FCNTL, F_SETFL, os.O_NONBLOCK)),
        "read a module": attempt(lambda: opened(os.__file__, os.O_RDONLY)),
        "import late": attempt(lambda: __import__("colorsys")),
        "traceback": attempt(traced),
        "read /proc": attempt(lambda: opened("/proc/self/status", os.O_RDONLY)),
        "read /etc/passwd": attempt(lambda: opened("/etc/passwd", os.O_RDONLY)),
        "list /": attempt(lambda: os.listdir("/")),
        "write a module": attempt(lambda: opened(os.__file__, os.O_WRONLY | os.O_APPEND)),
        "create a file": attempt(created),
        "fork": attempt(fork),
        "exec": attempt(lambda: raw(59, 0, 0, 0)),
        "socket": attempt(connected),
        "ptrace": attempt(lambda: raw(101, 16, 0, 0, 0)),
        "process_vm_readv": attempt(lambda: raw(310, os.getpid(), 0, 0, 0, 0, 0)),
        "bpf": attempt(lambda: raw(321, 0, 0, 0)),
        "unshare": attempt(lambda: raw(272, 0x10000000)),
        "kill": attempt(lambda: os.kill(os.getpid(), 0)),
        "type on the terminal": attempt(type_on_terminal),
        "executable memory": attempt(executable),
        "memory": attempt(lambda: mmap.mmap(-1, 1 << 20)),
        "thread": attempt(start_thread),
        "socketpair": attempt(paired),
        "pipe": attempt(piped),
        "memfd": attempt(lambda: os.close(os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))),
    }


def capabilities() -> list[int]:
    """The numbers in the effective set."""
    with open("/proc/self/status", encoding="ascii") as file:
        mask = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))
    return [number for number in range(64) if mask >> number & 1]


def reaches(number: int) -> bool:
    """Whether descriptor `number`, which is closed first, can be had again."""
    os.close(number)
    opened = []
    try:
        while True:
            opened.append(os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY))
    except OSError:
        return number in opened
    finally:
        for one in opened:
            os.close(one)


def waiting_child() -> tuple[int, int]:
    """The pid and pidfd of a child that lives as long as this process: no death signal need reach it."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(theirs)
        os.read(ours, 1)
        os._exit(0)
    os.close(ours)
    return pid, os.pidfd_open(pid)


def main() -> None:
    sys.path.append(sys.argv[1])
    from kvmbox.base.errors import SandboxError
    from kvmbox.jail import layers
    from kvmbox.remote.process.spawner_client import SpawnerChild
    from kvmbox.sandbox import scope, vmm

    without, keep = int(sys.argv[2]), int(sys.argv[3])
    leave = threading.Event()
    result: dict[str, object] = {}

    def be_early() -> None:
        leave.wait()
        result["early"] = attempts(*targets)

    early = threading.Thread(target=be_early)
    stranger, stranger_pidfd = waiting_child()
    if "scoped" in sys.argv:
        scope.OWN.take()
    spawner, spawner_pidfd = waiting_child()
    pinned = SpawnerChild(spawner, spawner_pidfd).pin()
    targets = stranger, stranger_pidfd, pinned
    if "early-thread" in sys.argv:
        early.start()
    try:
        confinement = vmm.confine_main(
            keep=keep,
            spawner_pidfd=pinned,
            without=without,
            require=layers.VMM_LANDLOCK if "require" in sys.argv else 0,
            tracebacks=True,
        )
    except SandboxError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    result["applied"] = layers.names(confinement.applied)
    result["missing"] = confinement.missing
    result["capabilities"] = capabilities()
    result["main"] = attempts(*targets)

    def be_vcpu() -> None:
        vmm.confine_vcpu(confinement)
        result["vcpu"] = attempts(*targets)

    thread = threading.Thread(target=be_vcpu)
    thread.start()
    thread.join()
    result["main again"] = attempts(*targets)
    leave.set()
    if "early-thread" in sys.argv:
        early.join()
    signal.pidfd_send_signal(pinned, signal.SIGKILL)
    os.waitpid(spawner, 0)
    result["stranger lives"] = os.waitpid(stranger, os.WNOHANG) == (0, 0)
    result["number taken"] = reaches(pinned)
    attempt(lambda: os.kill(stranger, signal.SIGKILL))  # where nothing was confined it stands still
    print(json.dumps(result), flush=True)


main()
