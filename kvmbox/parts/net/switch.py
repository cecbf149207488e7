"""A switch between machines of this user on this host: the port of one machine (`hub` is the switch itself).

A switch is a process. The first machine that names it starts it, and it ends when the last one has left. Its
socket is in a directory that is the user's alone. Whoever comes takes a lock, so that nobody starts a second
one. The switch greets who has connected: a switch that is just ending does not.

Each packet to a machine is a frame behind 4 bytes: how many frames for this machine were lost so far, because
it has not read.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from kvmbox.base.errors import StartError
from kvmbox.host.sockets.unix_socket import listen_at
from kvmbox.parts.net.hub import FULL, HELLO, LOST, MOST_PORTS
from kvmbox.parts.net.wires import Packets

GREETED_SECONDS: Final = 10.0
_TRIES: Final = 3
_STARTED: Final[list[int]] = []
"""Switches of this program that may still run: one that has ended is reaped when the next one starts."""
_PROGRAM: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; from kvmbox.parts.net.hub import main; main(int(sys.argv[1]))"
)


class SwitchPort(Packets):
    """The wire to a switch."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._lost = 0

    def receive(self) -> list[bytes]:
        """See Wire."""
        packets = [packet for packet in super().receive() if len(packet) > LOST.size]
        if packets:
            (self._lost,) = LOST.unpack_from(packets[-1])
        return [packet[LOST.size :] for packet in packets]

    @property
    def lost(self) -> int:
        """See Wire."""
        return self._lost


def join(name: str) -> SwitchPort:
    """Connect to the switch `name`, which is started if there is none. Raises StartError."""
    try:
        directory = _directory()
        with _locked(directory / f"switch-{name}.lock"):
            return SwitchPort(_connect(str(directory / f"switch-{name}")))
    except OSError as error:
        hint = "XDG_RUNTIME_DIR names a directory of this user alone; without it, /tmp is used"
        if error.errno == errno.EUSERS:
            hint = "end a machine there, or name another switch"
        raise StartError(f"--net switch:{name}: {error.strerror or error}", hint=hint) from error


def _directory() -> Path:
    """Where the sockets are: nobody else's. Raises OSError."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(runtime) if runtime else Path("/tmp")  # noqa: S108 - what is there is looked at below
    path /= "kvmbox" if runtime else f"kvmbox-{os.getuid()}"
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise OSError(f"{path} is not a directory of this user alone")
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _connect(path: str) -> int:
    """A socket that the switch at `path` has greeted. Raises OSError."""
    for _ in range(_TRIES):
        port = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            port.settimeout(GREETED_SECONDS)
            port.connect(path)
            greeting = port.recv(len(FULL))
            if greeting == FULL:
                raise OSError(errno.EUSERS, f"it has {MOST_PORTS} machines, and no port for another one")
            if greeting == HELLO:
                port.setblocking(False)
                return port.detach()
        except (FileNotFoundError, ConnectionError):
            pass
        finally:
            port.close()
        _start(path)
    raise OSError("the switch does not start")


def _reap() -> None:
    for pid in list(_STARTED):
        with suppress(ChildProcessError):  # somebody has reaped it
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        _STARTED.remove(pid)


def _start(path: str) -> None:
    """Start the switch: it has the socket that listens, and nothing else of ours."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    with listen_at(path, socket.SOCK_SEQPACKET) as listener:
        _reap()
        switch = subprocess.Popen(  # left to itself: it ends with its last machine
            [sys.executable, "-I", "-S", "-c", _PROGRAM, str(listener.fileno()), *sys.path],
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        _STARTED.append(switch.pid)
        switch.returncode = 0  # so that nobody is warned that it runs on
