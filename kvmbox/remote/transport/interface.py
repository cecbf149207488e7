"""The interface of a transport: a `Transport` moves words and frames to the models, and checks nothing.

A transport sends a request and returns the reply, copied once into private memory. Only the channel decides
whether the reply is good. The hot path moves words. A request without a payload is the four words of its
header (`protocol.WORDS`), and so is a reply without effects. Everything else is a frame of bytes.

A `Link` is a connection that no channel and no process uses yet. `ipc_table` has the table of all kinds.
"""

from __future__ import annotations

import mmap
import os
import select
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final, Protocol

from kvmbox.base.value_classes import Value
from kvmbox.remote.process.spin_permits import SpinPermits
from kvmbox.wire.protocol import WORDS

Words = tuple[int, int, int, int]
"""A header as four words: see `protocol.WORDS`."""

NO_HEADER: Final[Words] = (0, 0, 0, 0)
"""Instead of the words of a reply that is no frame. No good reply begins with a zero."""


def frame_of(words: Words, payload: bytes) -> bytes:
    """The frame that a transport has given as `words` and `payload`."""
    return payload if words is NO_HEADER else WORDS.pack(*words) + payload


Waits = Callable[[select.poll, int], bool]
"""Whether a poll reports anything within so many slices; see `Channel`."""


class TransportError(Exception):
    """There is no reply, for the given reason. The channel turns this into an error of kvmbox."""


class EndedError(TransportError):
    """The other end is closed."""


class MisusedError(TransportError):
    """The other end does something that no honest device process does."""


class OverdueError(TransportError):
    """The reply has not come within `slices` slices."""

    def __init__(self, slices: int) -> None:
        super().__init__(f"no reply within {slices} slices")
        self.slices = slices


class Transport:
    """A connection to the models of a channel. Used under the lock of the channel.

    This one leads nowhere: it is that of a channel which was disconnected for good.
    """

    is_started: ClassVar[bool] = True
    """Whether there are models at the other end: see `on_demand`."""

    def exchange_words(self, first: int, now: int, value: int, offset_and_length: int) -> Words:
        """Send a request without a payload and wait for the reply for as long as it takes.

        Returns the reply's header, or NO_HEADER. A header that announces nothing behind it is returned only
        if there is nothing behind it. Raises TransportError.
        """
        raise EndedError("its channel was disconnected")

    def payload(self, words: Words) -> bytes:
        """What follows `words`, which `exchange_words` has just returned. Called once. Raises TransportError.

        It may be longer or shorter than the header says. After NO_HEADER it is all that has come.
        """
        raise NotImplementedError

    def exchange(self, sent: bytes, slices: int | None) -> bytes:
        """Send any request and return the whole reply; wait for so many slices, or for ever.

        With a number of slices nothing else blocks either. Raises TransportError.
        """
        raise EndedError("its channel was disconnected")

    def rest_of_exchange(self) -> Words:
        """As `exchange_words`, for a request that compiled code has sent, and could not finish."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the VMM's end: the device process reads end of file and exits. Idempotent."""


class Opens(Protocol):
    """What a channel takes over: usually a `Link`."""

    def open(self, device_type: str, waits: Waits) -> Transport:
        """The transport to the models of `device_type`. Called once."""
        ...


class Link(Value):
    """Both ends of a connection to a device process, by descriptor; `kind` is that of its transport.

    `vmm` is a socket, or the ends to write requests to and to read replies from. `device` is a socket, or
    the ends to read requests from and to write replies to, and with shared memory its descriptor.
    `spin` is who grants the right to spin, where that can be had.
    """

    kind: type[LinkedTransport]
    vmm: tuple[int, ...]
    device: tuple[int, ...]
    page: mmap.mmap | None = None
    spin: SpinPermits | None = None

    def open(self, device_type: str, waits: Waits) -> Transport:
        """See Opens: the transport takes over the VMM's end."""
        return self.kind(self, device_type, waits)

    def close_vmm_end(self) -> None:
        """Close what a transport would have taken over."""
        if self.page is not None:
            self.page.close()
        for descriptor in self.vmm:
            os.close(descriptor)


class LinkedTransport(Transport, ABC):
    """A transport to a process, or a thread, at the other end of a link of its own kind."""

    uses_pipes: ClassVar[bool] = True
    """Whether the device process has one descriptor to read from and another one to write to."""
    spins: ClassVar[bool] = False
    """Whether both sides may wait by spinning."""
    device_holds: ClassVar[str]
    """What the device process holds of it, for people."""

    @abstractmethod
    def __init__(self, link: Link, device_type: str, waits: Waits) -> None:
        """Take over the VMM's end of `link`."""

    @classmethod
    @abstractmethod
    def connect(cls, made: list[int], spin: SpinPermits | None) -> Link:
        """A new link. Descriptors go into `made` as they are made, to be closed on failure. OSError."""
