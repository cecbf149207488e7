"""After the network and other processes' sockets: loopback and Unix only, and one datagram."""

from __future__ import annotations

import struct

from kvmbox.tools.audit.attacks.syscalls import attempt, filled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

AF_UNIX: Final = 1
AF_INET: Final = 2
AF_VSOCK: Final = 40
ANY_CID: Final = 0xFFFF_FFFF
SOCK_STREAM: Final = 1
SOCK_DGRAM: Final = 2
LOOPBACK: Final = bytes((127, 0, 0, 1))


def _inet_address(port: int) -> bytes:
    return struct.pack("=H", AF_INET) + port.to_bytes(2, "big") + LOOPBACK + bytes(8)


def _unix_address(name: str) -> bytes:
    return (
        struct.pack("=H", AF_UNIX) + name.replace("@", "\0", 1).encode() + (b"" if name[0] == "@" else b"\0")
    )


def _listen(family: int, own: bytes) -> None:
    socket = attempt("socket", family, SOCK_STREAM, 0)
    attempt("bind", socket, filled(own), len(own))
    attempt("listen", socket, 1)


def _connect(family: int, target: bytes) -> None:
    attempt("connect", attempt("socket", family, SOCK_STREAM, 0), filled(target), len(target))


def make_socket(given: dict[str, str]) -> None:
    """A socket: TCP, Unix, to the kernel's routing tables, or between virtual machines and their host."""
    attempt("socket", int(given["family"]), int(given["kind"]), 0)


def listen_vsock(given: dict[str, str]) -> None:
    """Listen for the host, or for guests, on a port that is one for all network namespaces."""
    # A struct sockaddr_vm.
    _listen(AF_VSOCK, struct.pack("=HHII4x", AF_VSOCK, 0, int(given["vsock_port"]), ANY_CID))


def connect_inet(given: dict[str, str]) -> None:
    """Connect to audit's listener on loopback."""
    _connect(AF_INET, _inet_address(int(given["tcp_port"])))


def listen_inet(_given: dict[str, str]) -> None:
    """Listen on a port of loopback that the kernel chooses."""
    _listen(AF_INET, _inet_address(0))


def send_datagram(given: dict[str, str]) -> None:
    """One UDP datagram to audit's socket on loopback."""
    target = filled(_inet_address(int(given["udp_port"])))
    socket = attempt("socket", AF_INET, SOCK_DGRAM, 0)
    attempt("sendto", socket, filled(b"!"), 1, 0, target, len(target))


def connect_unix(given: dict[str, str]) -> None:
    """Connect to audit's Unix socket, by path or by abstract name ('@…')."""
    _connect(AF_UNIX, _unix_address(given["path"]))
