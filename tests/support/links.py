"""Links to far ends that a test plays itself."""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.remote.transport.interface import Link, Transport, Waits
from kvmbox.remote.transport.stream import SocketTransport


def socket_link(descriptor: int) -> Link:
    """The VMM's end of a socket whose other end the test has."""
    return Link(SocketTransport, (descriptor,), ())


class Opening:
    """A link whose transport is what `make(device_type, waits)` gives."""

    def __init__(self, make: Callable[[str, Waits], Transport]) -> None:
        self.open = make


class Nowhere:
    """A link that leads to nobody who is asked."""

    def open(self, device_type: str, waits: Waits) -> Transport:
        del device_type, waits
        return SilentTransport()


class SilentTransport(Transport):
    """Nobody may ask here."""

    def exchange_words(
        self, first: int, now: int, value: int, offset_and_length: int
    ) -> tuple[int, int, int, int]:
        raise AssertionError("asked")

    def payload(self, words: tuple[int, int, int, int]) -> bytes:
        raise AssertionError("asked")

    def exchange(self, sent: bytes, slices: int | None) -> bytes:
        raise AssertionError("asked")
