"""`--net user`: passt, a program that translates between frames and sockets of the host, without root.

It is started before the VMM confines itself, with one end of a socket pair, and ends when the other end is
closed. It goes to the background when it is ready: so its exit status tells whether it could start.

The guest is told its address by DHCP. The addresses are those that QEMU's user network has, which kernels
often have built in: 10.0.2.15 for the guest, 10.0.2.2 for the gateway, behind which the loopback interface of
the host is, and 10.0.2.3 for a name server. Ports are forwarded from 127.0.0.1 only.

The interface is named, although nothing is taken from it: a host without a default route has no other, and
passt would give addresses of its own there.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import StartError

if TYPE_CHECKING:
    from kvmbox.parts.net.net_option import Forward

PROGRAM: Final = "passt"
START_SECONDS: Final = 10.0
LOOPBACK: Final = "127.0.0.1"
NETWORK: Final = (
    *("--ipv4-only", "--interface", "lo", "--mtu", "1500", "--mac-addr", "02:6b:76:ff:ff:02"),
    *("--address", "10.0.2.15", "--netmask", "24", "--gateway", "10.0.2.2", "--dns-forward", "10.0.2.3"),
)

_FORWARDS: Final = (
    "another program may have the port, or it needs root (below 1024); tcp:PORT takes a free one"
)
_FLAGS: Final = {"tcp": "--tcp-ports", "udp": "--udp-ports"}


def start(forwards: Sequence[Forward]) -> int:
    """Start passt; the descriptor of the stream of frames. Raises StartError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    command = [PROGRAM, "--fd", str(theirs.fileno()), *NETWORK]
    for protocol, flag in _FLAGS.items():
        ports = [f"{LOOPBACK}/{one.host}:{one.guest}" for one in forwards if one.protocol == protocol]
        command += [word for port in ports or ["none"] for word in (flag, port)]
    try:
        with theirs:
            done = subprocess.run(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=START_SECONDS,
                check=False,
            )
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise StartError(
                f"--net user: passt does not start: {lines[-1] if lines else done.returncode}",
                hint=_FORWARDS if forwards else f"'{PROGRAM} --foreground' may tell more",
            )
    except FileNotFoundError as error:
        ours.close()
        raise StartError("--net user: the program passt is not there", hint="apt install passt") from error
    except subprocess.TimeoutExpired as error:
        ours.close()
        raise StartError(f"--net user: passt is not ready after {START_SECONDS:.0f} s") from error
    except OSError as error:
        ours.close()
        raise StartError(
            f"--net user: passt does not start: {error.strerror}", hint="apt install --reinstall passt"
        ) from error
    except BaseException:
        ours.close()
        raise
    ours.setblocking(False)
    return ours.detach()
