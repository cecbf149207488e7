"""A VMM that confines itself, as a program, and then tries things: for tests of `sandbox.vmm`.

Usage: confined.py DIRECTORY-OF-KVMBOX WITHOUT OWN-IDS [early-thread]. Prints one line of JSON: what was
applied, what is missing, and the errno of each attempt (0: it worked) of the main thread and of a
vCPU thread.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

TIOCSTI = 0x5412


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
    for end in socket.socketpair():
        end.close()


def piped() -> None:
    """The same, as a pipe."""
    for end in os.pipe():
        os.close(end)


def attempts(target: int) -> dict[str, int]:
    """Everything that is tried; `target` is the pidfd of a process that may be killed."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def raw(number: int, *arguments: int) -> None:
        if libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(one) for one in arguments)) < 0:
            raise OSError(ctypes.get_errno(), "refused")

    def type_on_terminal() -> None:
        import fcntl

        fcntl.ioctl(0, TIOCSTI, b"x")

    return {
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
        "signal by pidfd": attempt(lambda: signal.pidfd_send_signal(target, 0)),
    }


def capabilities() -> list[int]:
    """The numbers in the effective set."""
    with open("/proc/self/status", encoding="ascii") as file:
        mask = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))
    return [number for number in range(64) if mask >> number & 1]


def main() -> None:
    sys.path.append(sys.argv[1])
    from kvmbox.errors import SandboxError
    from kvmbox.sandbox import layers, vmm

    without, own_ids = int(sys.argv[2]), bool(int(sys.argv[3]))
    leave = threading.Event()
    result: dict[str, object] = {}

    def be_early() -> None:
        leave.wait()
        result["early"] = attempts(target)

    early = threading.Thread(target=be_early)
    child = os.fork()
    if child == 0:
        signal.pause()
    target = os.pidfd_open(child)
    if "early-thread" in sys.argv:
        early.start()
    try:
        confinement = vmm.confine_main(
            own_ids=own_ids,
            without=without,
            require=layers.VMM_LANDLOCK if "require" in sys.argv else 0,
            tracebacks=True,
        )
    except SandboxError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        signal.pidfd_send_signal(target, signal.SIGKILL)
        return
    result["applied"] = layers.names(confinement.applied)
    result["missing"] = confinement.missing
    result["capabilities"] = capabilities()
    result["main"] = attempts(target)

    def be_vcpu() -> None:
        vmm.confine_vcpu(confinement)
        result["vcpu"] = attempts(target)

    thread = threading.Thread(target=be_vcpu)
    thread.start()
    thread.join()
    result["main again"] = attempts(target)
    leave.set()
    if "early-thread" in sys.argv:
        early.join()
    signal.pidfd_send_signal(target, signal.SIGKILL)
    os.waitpid(child, 0)
    print(json.dumps(result), flush=True)


main()
