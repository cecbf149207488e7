"""What a process that was taken over is asked to do, on the targets of `kvmbox audit`.

As there, success is what is seen from outside: a secret that came back, a connection, a signal.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from kvmbox.tools.audit.attacks.processes import PTRACE_SEIZE, SIGUSR1
from kvmbox.tools.audit.attacks.syscalls import AT_FDCWD, NUMBERS
from kvmbox.tools.audit.audit_setup import Scene
from tools.reach.tracee import Tracee

SECRET_SIZE: Final = 16
ANY_RIGHTS: Final = 7  # PROT_READ | PROT_WRITE | PROT_EXEC
PRIVATE_ANONYMOUS: Final = 0x22


class Refused(Exception):
    """A call gave an error: its name is the message."""


def _made(tracee: Tracee, call: str, *arguments: int | bytes) -> int:
    result = tracee.call(NUMBERS[call], *arguments)
    if result < 0:
        raise Refused(errno.errorcode.get(-result, str(-result)))
    return result


def read_file(tracee: Tracee, scene: Scene) -> bool:
    """A file of the user's."""
    descriptor = _made(tracee, "openat", AT_FDCWD, str(scene.image).encode(), 0)
    place = tracee.place(bytes(SECRET_SIZE))
    _made(tracee, "read", descriptor, place, SECRET_SIZE)
    return tracee.read(place, SECRET_SIZE) == scene.secret.encode()


def write_file(tracee: Tracee, scene: Scene) -> bool:
    """A new file."""
    flags = os.O_WRONLY | os.O_CREAT
    descriptor = _made(tracee, "openat", AT_FDCWD, str(scene.planted).encode(), flags, 0o600)
    _made(tracee, "write", descriptor, scene.secret.encode(), SECRET_SIZE)
    return scene.planted_file()


def open_kvm(tracee: Tracee, _scene: Scene) -> bool:
    """Another virtual machine."""
    return _made(tracee, "openat", AT_FDCWD, b"/dev/kvm", os.O_RDWR) >= 0


def connect_tcp(tracee: Tracee, scene: Scene) -> bool:
    """A listener on loopback."""
    port = int(scene.given["tcp_port"])
    address = struct.pack("=H", socket.AF_INET) + port.to_bytes(2, "big") + bytes((127, 0, 0, 1)) + bytes(8)
    descriptor = _made(tracee, "socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    _made(tracee, "connect", descriptor, address, len(address))
    return scene.tcp_connected()


def connect_unix(tracee: Tracee, scene: Scene) -> bool:
    """A socket with a path, as of a daemon."""
    address = struct.pack("=H", socket.AF_UNIX) + scene.socket_path.encode() + b"\0"
    descriptor = _made(tracee, "socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
    _made(tracee, "connect", descriptor, address, len(address))
    return scene.path_connected()


def fork(tracee: Tracee, _scene: Scene) -> bool:
    """A process."""
    return _made(tracee, "fork") >= 0


def execute(tracee: Tracee, _scene: Scene) -> bool:
    """A program."""
    return _made(tracee, "execve", b"/bin/true", 0, 0) >= 0


def signal(tracee: Tracee, scene: Scene) -> bool:
    """A signal to another process of the user's."""
    _made(tracee, "kill", scene.decoy_pid, SIGUSR1)
    return scene.signalled()


def trace(tracee: Tracee, scene: Scene) -> bool:
    """Another process of the user's, under control."""
    return _made(tracee, "ptrace", PTRACE_SEIZE, scene.decoy_pid, 0, 0) >= 0


def read_memory(tracee: Tracee, scene: Scene) -> bool:
    """The memory of another process of the user's."""
    place = tracee.place(bytes(SECRET_SIZE))
    own = tracee.place(struct.pack("<QQ", place, SECRET_SIZE))
    other = tracee.place(struct.pack("<QQ", int(scene.given["address"]), SECRET_SIZE))
    _made(tracee, "process_vm_readv", scene.decoy_pid, own, 1, other, 1, 0)
    return tracee.read(place, SECRET_SIZE) == scene.secret.encode()


def new_code(tracee: Tracee, _scene: Scene) -> bool:
    """Memory to be written and run."""
    return _made(tracee, "mmap", 0, os.sysconf("SC_PAGESIZE"), ANY_RIGHTS, PRIVATE_ANONYMOUS, -1, 0) > 0


PROBES: Final[dict[str, Callable[[Tracee, Scene], bool]]] = {
    "new machine code": new_code,
    "read a file": read_file,
    "write a file": write_file,
    "open /dev/kvm": open_kvm,
    "connect by TCP": connect_tcp,
    "connect to a Unix socket": connect_unix,
    "fork": fork,
    "run a program": execute,
    "signal another process": signal,
    "trace it": trace,
    "read its memory": read_memory,
}
