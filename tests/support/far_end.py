"""The device process's end of a channel over a socket, played by a test.

Replies are put there before they are asked for, so that one thread can play both sides.
"""

from __future__ import annotations

import socket

from kvmbox.contract.model import Effect
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_reply
from kvmbox.wire.protocol import Request
from tests.support.links import socket_link


class FarEnd:
    """`link` is for the channel, which takes it over."""

    def __init__(self) -> None:
        vmm_end, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link = socket_link(vmm_end.detach())
        self.sequence = 0

    def reply(
        self, kind: int, *effects: tuple[int, Effect], device: int = 0, size: int = 0, value: int = 0
    ) -> None:
        """What the process answers to the next request that has none yet."""
        self.sequence += 1
        request = Request(kind, device, size, self.sequence)
        self.socket.send(encode_reply(request, None, value, list(effects)))

    def asked(self) -> list[Request]:
        """The requests since the last call."""
        found: list[Request] = []
        while True:
            try:
                frame = self.socket.recv(8192, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            found.append(protocol.decode_request(frame))

    def close(self) -> None:
        """The process is gone."""
        self.socket.close()
