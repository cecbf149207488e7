"""The serving loop of a device process: read a request, answer it, and continue.

The loop blocks only while waiting for the next request, on a `Port`: descriptors, or a page of shared memory.
Both ports need only the system calls read, write and exit. So the same loop runs under every filter,
including strict mode.
"""

from __future__ import annotations

from kvmbox.jail.server import DeviceServer, error_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from kvmbox.jail.server import Answer, Words

    class Port(Protocol):
        """The device process's end of a link."""

        def next_request(self) -> Words | None:
            """Wait for a request; returns its header, or `server.NO_HEADER`; None at the end of the link."""
            ...

        def frame(self, words: Words) -> bytes:
            """All of the request that `words` was returned of."""
            ...

        def reply(self, answer: Answer) -> None:
            """Send the answer to it."""
            ...

        def leave(self) -> None:
            """Nothing is sent any more, whatever the VMM may wait for."""
            ...


def serve(port: Port, server: DeviceServer | None = None) -> int:
    """Answer requests until SHUTDOWN or the end of the link; returns the exit status.

    A model's exception sends one bounded error frame and ends the loop with status 1.
    """
    server = server or DeviceServer()
    next_request, frame, reply, answer_to = port.next_request, port.frame, port.reply, server.answer
    while server.running:
        words = next_request()
        if words is None:
            return 0
        try:
            answer = answer_to(words, frame)
        except Exception as error:  # noqa: BLE001 - whatever a model raises must reach the VMM as a frame
            reply(error_answer(words[0] >> 32, error))
            port.leave()
            return 1
        reply(answer)
    return 0
