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
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, Self

from kvmbox.base.errors import SandboxError
from kvmbox.jail import label, linux
from kvmbox.remote.process.spawner_client import INTERPRETER_FLAGS, NS_PER_MS, READY_TIMEOUT_NS, SLICE_NS
from kvmbox.tools.audit import decoy

IPC_STAT: Final = 2
SHMID_SIZE: Final = 112  # sizeof(struct shmid_ds)
SEGMENT_SIZE_OFFSET: Final = 48  # of shm_segsz, behind struct ipc_perm
MAX_HANDLE_SIZE: Final = 128
AT_SYMLINK_FOLLOW: Final = 0x400
AT_EMPTY_PATH: Final = 0x1000
PAGE: Final = 4096

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
            self._abstract = self._unix_listener(stack, "\0kvmbox-audit-" + secrets.token_hex(8))
            self._path = self._unix_listener(stack, str(self.directory / "socket"))
        except OSError as error:
            raise SandboxError(f"cannot open the sockets that audit aims at: {error.strerror}") from error
        for one in (self._tcp, self._udp, self._abstract, self._path):
            one.setblocking(False)
        where = self._hear_decoy(b"\n", "cannot start the decoy: it said nothing")
        self._address, self._descriptor = (int(word) for word in where.split())

    @staticmethod
    def _unix_listener(stack: contextlib.ExitStack, name: str) -> socket.socket:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(name)
        listener.listen()
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
        stack.enter_context(process)
        stack.callback(process.kill)
        return process

    def _hear_decoy(self, end: bytes, problem: str) -> bytes:
        """What the decoy says, up to `end`. Raises SandboxError with `problem` if it does not say that."""
        assert self._decoy.stdout is not None
        heard = b""
        poller = select.poll()
        poller.register(self._decoy.stdout, select.POLLIN)
        for _ in range(READY_TIMEOUT_NS // SLICE_NS):
            if poller.poll(SLICE_NS // NS_PER_MS):
                data = os.read(self._decoy.stdout.fileno(), 64)
                heard += data
                if not data or end in heard:
                    break
        if end not in heard:
            raise SandboxError(problem)
        return heard

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
            "module": str(label.in_force()),
        }

    @property
    def own_label(self) -> str:
        """What audit's own label is called, where it is to be taken again."""
        text = Path("/proc/self/attr/current").read_text() if label.in_force() else ""
        name = text.rstrip("\0\n")
        if label.in_force() == linux.LSM_ID_APPARMOR:
            return f"changeprofile {name.partition(' (')[0]}"
        return name

    @property
    def process_handle(self) -> str:
        """The file handle of the decoy."""
        with open(os.pidfd_open(self._decoy.pid), "rb", buffering=0) as pidfd:
            return self.handle("", pidfd.fileno())

    @staticmethod
    def handle(path: str, descriptor: int = -1) -> str:
        """The file handle of a file, in hexadecimal; empty where it has none."""
        buffer = ctypes.create_string_buffer(struct.pack("=Ii", MAX_HANDLE_SIZE, 0), 8 + MAX_HANDLE_SIZE)
        mount = ctypes.c_int()
        # SAFETY: the kernel writes a struct file_handle of at most the size in it, and an int.
        done = _libc.name_to_handle_at(
            descriptor,
            path.encode(),
            buffer,
            ctypes.byref(mount),
            AT_SYMLINK_FOLLOW if path else AT_EMPTY_PATH,
        )
        (size,) = struct.unpack_from("=I", buffer)
        return buffer.raw[: 8 + size].hex() if done == 0 else ""

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
        self.signalled()

    def planted_file(self) -> bool:
        """Whether the file that an attack was to write has a text as long as that which it was to hold."""
        # Nobody may read it: the umask of device processes is 777.
        return self.planted.exists() and self.planted.stat().st_size == len(self.secret)

    def deleted(self) -> bool:
        """Whether the file that an attack was to delete is gone."""
        return not self.doomed.exists()

    def signalled(self) -> bool:
        """Whether a signal came to the decoy since this was last asked. Raises SandboxError."""
        assert self._decoy.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead, and says nothing
            os.write(self._decoy.stdin.fileno(), b"?")
        problem = "the decoy died of an attack: nothing that was found can be relied on"
        return decoy.SIGNALLED in self._hear_decoy(decoy.ANSWER, problem)

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
