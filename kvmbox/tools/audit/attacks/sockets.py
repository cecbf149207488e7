"""After the network and other processes' sockets: loopback and Unix only, and one datagram."""

from __future__ import annotations

import struct

from kvmbox.tools.audit.attacks.syscalls import address, attempt, filled

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


def make_socket(given: dict[str, str]) -> None:
    """A socket: TCP, Unix, to the kernel's routing tables, or between virtual machines and their host."""
    attempt("socket", int(given["family"]), int(given["kind"]), 0)


def listen_vsock(given: dict[str, str]) -> None:
    """Listen for the host, or for guests, on a port that is one for all network namespaces."""
    own = filled(struct.pack("=HHII4x", AF_VSOCK, 0, int(given["vsock_port"]), ANY_CID))
    socket = attempt("socket", AF_VSOCK, SOCK_STREAM, 0)
    # SAFETY: the kernel reads a struct sockaddr_vm.
    attempt("bind", socket, address(own), len(own))
    attempt("listen", socket, 1)


def connect_inet(given: dict[str, str]) -> None:
    """Connect to audit's listener on loopback."""
    target = filled(_inet_address(int(given["tcp_port"])))
    # SAFETY: the kernel reads an address of this length that outlives the call; so below.
    attempt("connect", attempt("socket", AF_INET, SOCK_STREAM, 0), address(target), len(target))


def listen_inet(_given: dict[str, str]) -> None:
    """Listen on a port of loopback that the kernel chooses."""
    own = filled(_inet_address(0))
    socket = attempt("socket", AF_INET, SOCK_STREAM, 0)
    attempt("bind", socket, address(own), len(own))
    attempt("listen", socket, 1)


def send_datagram(given: dict[str, str]) -> None:
    """One UDP datagram to audit's socket on loopback."""
    target, data = filled(_inet_address(int(given["udp_port"]))), filled(b"!")
    socket = attempt("socket", AF_INET, SOCK_DGRAM, 0)
    attempt("sendto", socket, address(data), 1, 0, address(target), len(target))


def connect_unix(given: dict[str, str]) -> None:
    """Connect to audit's Unix socket, by path or by abstract name ('@…')."""
    target = filled(_unix_address(given["path"]))
    attempt("connect", attempt("socket", AF_UNIX, SOCK_STREAM, 0), address(target), len(target))
