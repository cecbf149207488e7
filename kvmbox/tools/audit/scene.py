"""What attacks are aimed at: files, sockets and a process that audit makes for them, and takes away again.

Nothing else is ever a target. A secret is in each place that an attack may read, so that reading it, and not
a system call that merely returned, is what counts as success.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, Self

from kvmbox.errors import SandboxError
from kvmbox.remote.spawner_client import INTERPRETER_FLAGS
from kvmbox.tools.audit import decoy

PATIENCE_MS: Final = 5_000
"""How long the decoy may take to start."""

SIGNAL_PATIENCE_MS: Final = 500
"""How long a signal that was sent may take to be seen."""

IPC_STAT: Final = 2
SHMID_SIZE: Final = 112  # sizeof(struct shmid_ds)
SEGMENT_SIZE_OFFSET: Final = 48  # of shm_segsz, behind struct ipc_perm
PAGE: Final = 4096
NS_PER_MS: Final = 1_000_000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.shmctl.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_libc.shmctl.restype = ctypes.c_int


class Scene:
    """The targets of one audit; a context manager, and nothing of it is left behind."""

    def __init__(self) -> None:
        self.secret = secrets.token_hex(8)
        self._exit = contextlib.ExitStack()
        self._decoy: subprocess.Popen[bytes]
        # A size that no other segment on this host is likely to have.
        self._segment_size = PAGE + 1 + secrets.randbelow(PAGE - 2)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._set_up(stack)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._exit.close()

    def _set_up(self, stack: contextlib.ExitStack) -> None:
        self._decoy = self._start_decoy(stack)
        self.directory = Path(tempfile.mkdtemp(prefix="kvmbox-audit-"))
        stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.image = self.directory / "guest.elf"
        self.image.write_text(self.secret)
        self.doomed = self.directory / "doomed"
        self.planted = self.directory / "planted"
        self.below = self.directory / "below"
        self.below.mkdir()
        try:
            self._tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            self._udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            self._udp.bind(("127.0.0.1", 0))
            self._vsock_port = self._free_vsock_port()
            self._abstract = stack.enter_context(
                self._unix_listener("\0kvmbox-audit-" + secrets.token_hex(8))
            )
            self._path = stack.enter_context(self._unix_listener(str(self.directory / "socket")))
        except OSError as error:
            raise SandboxError(f"cannot open the sockets that audit aims at: {error.strerror}") from error
        for one in (self._tcp, self._udp, self._abstract, self._path):
            one.setblocking(False)
        self._read_decoy_line()

    @staticmethod
    def _unix_listener(name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(name)
            listener.listen()
        except OSError:
            listener.close()
            raise
        return listener

    @staticmethod
    def _free_vsock_port() -> int:
        """A vsock port that nobody listens on; 0 where this host has no vsock."""
        try:
            with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as one:
                one.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
                return int(one.getsockname()[1])
        except OSError:
            return 0

    def _start_decoy(self, stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
        directory = str(Path(__file__).parents[3].absolute())
        code = (
            f"import sys; sys.path.append({directory!r}); from kvmbox.tools.audit.decoy import main; "
            f"main({os.getpid()})"
        )
        try:
            process = subprocess.Popen(
                [sys.executable, *INTERPRETER_FLAGS, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={decoy.VARIABLE: self.secret},
                start_new_session=True,  # Ctrl-C is for audit, which then takes the decoy away
            )
        except OSError as error:
            raise SandboxError(f"cannot start the decoy: {error.strerror}") from error
        stack.callback(self._end_decoy, process)
        return process

    @staticmethod
    def _end_decoy(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _decoy_output(self) -> int:
        assert self._decoy.stdout is not None
        return self._decoy.stdout.fileno()

    def _read_decoy_line(self) -> None:
        line = b""
        deadline = time.monotonic_ns() + PATIENCE_MS * NS_PER_MS
        while not line.endswith(b"\n"):
            left = (deadline - time.monotonic_ns()) // NS_PER_MS
            data = os.read(self._decoy_output(), 64) if self._readable(self._decoy_output(), left) else b""
            if not data:
                raise SandboxError("cannot start the decoy: it said nothing")
            line += data
        self._address, self._descriptor = (int(word) for word in line.split())

    @staticmethod
    def _readable(descriptor: int, milliseconds: int) -> bool:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(max(0, milliseconds)))

    # --- What attacks are told ------------------------------------------------------------------------

    @property
    def given(self) -> dict[str, str]:
        """Where the targets are, for the payload."""
        return {
            "pid": str(self._decoy.pid),
            "address": str(self._address),
            "descriptor": str(self._descriptor),
            "directory": str(self.below),
            "name": self.image.name,
            "text": self.secret,
            "tcp_port": str(self._tcp.getsockname()[1]),
            "vsock_port": str(self._vsock_port),
            "udp_port": str(self._udp.getsockname()[1]),
            "segment_size": str(self._segment_size),
            "host": os.uname().nodename,
        }

    @property
    def decoy_pid(self) -> int:
        """The decoy's pid."""
        return self._decoy.pid

    @property
    def abstract_name(self) -> str:
        """The abstract socket, as attacks spell it."""
        name = self._abstract.getsockname()
        return "@" + (name[1:].decode() if isinstance(name, bytes) else name[1:])

    @property
    def socket_path(self) -> str:
        """The socket that has a path."""
        return str(self._path.getsockname())

    # --- What attacks have done -----------------------------------------------------------------------

    def prepare(self) -> None:
        """Bring the targets into the state in which an attack is to find them."""
        self.planted.unlink(missing_ok=True)
        self.doomed.touch()
        for listener in (self._tcp, self._abstract, self._path):
            self._accepted(listener)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._udp.recv(16)
        while self._readable(self._decoy_output(), 0):
            if not os.read(self._decoy_output(), 64):
                return

    @property
    def alive(self) -> bool:
        """Whether the decoy is still there."""
        return self._decoy.poll() is None

    def planted_file(self) -> bool:
        """Whether the file that an attack was to write has a text as long as that which it was to hold."""
        # Nobody may read it: the umask of device processes is 777.
        return self.planted.exists() and self.planted.stat().st_size == len(self.secret)

    def deleted(self) -> bool:
        """Whether the file that an attack was to delete is gone."""
        return not self.doomed.exists()

    def signalled(self) -> bool:
        """Whether the decoy has seen a signal."""
        return self._readable(self._decoy_output(), SIGNAL_PATIENCE_MS) and bool(
            os.read(self._decoy_output(), 64)
        )

    def tcp_connected(self) -> bool:
        """Whether somebody connected to the listener on loopback."""
        return self._accepted(self._tcp)

    def vsock_port_taken(self) -> bool:
        """Whether somebody has the vsock port, as seen from here."""
        if not self._vsock_port:
            return False
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as one:
            try:
                one.bind((socket.VMADDR_CID_ANY, self._vsock_port))
            except OSError as error:
                return error.errno == errno.EADDRINUSE
        return False

    def abstract_connected(self) -> bool:
        """Whether somebody connected to the abstract socket."""
        return self._accepted(self._abstract)

    def path_connected(self) -> bool:
        """Whether somebody connected to the socket that has a path."""
        return self._accepted(self._path)

    def datagram_came(self) -> bool:
        """Whether the datagram socket has got something."""
        try:
            return bool(self._udp.recv(16))
        except BlockingIOError:
            return False

    def has_segment(self, identifier: int) -> bool:
        """Whether shared memory segment `identifier` is the attack's, as seen from here."""
        buffer = ctypes.create_string_buffer(SHMID_SIZE)
        # SAFETY: the kernel writes sizeof(struct shmid_ds) bytes into a buffer of that size.
        if _libc.shmctl(identifier, IPC_STAT, buffer) != 0:
            return False
        size = int.from_bytes(buffer.raw[SEGMENT_SIZE_OFFSET : SEGMENT_SIZE_OFFSET + 8], "little")
        return size == self._segment_size

    @staticmethod
    def same_namespace(pid: int, kind: str) -> bool:
        """Whether process `pid` is in audit's own namespace; True where that cannot be told."""
        try:
            return os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
        except OSError:
            return True

    @staticmethod
    def _accepted(listener: socket.socket) -> bool:
        came = False
        with contextlib.suppress(BlockingIOError):
            while True:
                listener.accept()[0].close()
                came = True
        return came
