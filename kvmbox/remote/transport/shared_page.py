"""The transport in shared memory: a mailbox that both sides poll, and two pipes as doorbells.

`wire.page_layout` describes the layout, the order of the stores, and why no wake-up is lost. This module is
the VMM's side.

Nothing is read twice. The transport polls the first word of the reply until the word changes. The change is
only a hint that there is a reply. Then the header is copied once, and the payload is copied once. The channel
checks and uses the copies. Later changes by the device process have no effect.

Spinning occupies a CPU, which the device process needs for itself. So a process may spin only with a right
from `SpinPermits`. Without this right, each request rings the doorbell, and the vCPU thread sleeps until the
reply rings back.

The doorbell is a pipe, because a pipe wakes a process in 5 µs and a socket in 8 µs. Like a socket, and unlike
an eventfd, a pipe also ends when the process at the other end dies.

The cost of `exchange_words` is three words and one word stored, and then some ten polls of 60 ns, until the
device process, which polls as often, has found the request and answered it. There is no system call.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from struct import Struct
from typing import Any, Final

from kvmbox.jail.fixed_descriptors import CHANNEL_FD, REPLY_FD
from kvmbox.remote.process.spin_permits import SpinPermits
from kvmbox.remote.transport.interface import (
    EndedError,
    Link,
    LinkedTransport,
    MisusedError,
    OverdueError,
    Waits,
    Words,
    frame_of,
)
from kvmbox.remote.transport.memory_barrier import fence
from kvmbox.wire import page_layout
from kvmbox.wire.page_layout import DOORBELL, DOORBELLS_READ
from kvmbox.wire.protocol import HEADER, MAX_FRAME, MAX_PAYLOAD, WORDS

LOOKS: Final = 800
"""How often the vCPU thread looks for a reply before it sleeps: some 50 µs."""

MAX_IDLE_RINGS: Final = (1 << 16) // DOORBELLS_READ + 64
"""How often a doorbell may be read without a reply being there. An honest device process rings once too often
at most, but each reply that was found before its bell was heard leaves one: up to a pipe full of them.
"""

ASK_EVERY: Final = 64
"""After how many requests without spinning the vCPU thread asks for the right."""

NAP_MS: Final = 1
"""How long the vCPU thread waits for a spinner that is late. Whoever needs its CPU for longer wants it for
itself: the scheduler's turns are longer.
"""

NAP_RINGS: Final = 8
"""How often it reads the doorbell in that time: earlier replies may have left bells."""

REST: Final = Struct("<QQQ")
"""The words of a header behind the first one."""

_REST_AT: Final = page_layout.REQUEST + 8
_REQUEST_WORD: Final = page_layout.REQUEST_WORD
_REPLY_WORD: Final = page_layout.REPLY_WORD
_REPLY_AT: Final = page_layout.REPLY
_PAYLOAD_AT: Final = page_layout.REPLY + HEADER.size
_DEVICE_WAITS: Final = page_layout.DEVICE_WAITS
_VMM_WAITS: Final = page_layout.VMM_WAITS


class PageTransport(LinkedTransport):
    """Frames that lie in shared memory."""

    spins = True
    device_holds = (
        f"a page shared with the VMM, and two pipes as doorbells, descriptors {CHANNEL_FD} and {REPLY_FD}"
    )

    @classmethod
    def connect(cls, made: list[int], spin: SpinPermits | None) -> Link:
        """See LinkedTransport."""
        made += os.pipe2(os.O_CLOEXEC)
        made += os.pipe2(os.O_CLOEXEC)
        memory = os.memfd_create("kvmbox-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        made.append(memory)
        os.ftruncate(memory, page_layout.SIZE)
        # Neither side can take the memory away under the other, which would be a SIGBUS.
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        # SAFETY: both sides may write to it at any time; see the module for what the VMM makes of that.
        page = mmap.mmap(memory, page_layout.SIZE)
        return Link(cls, (made[1], made[2]), (made[0], made[3], memory), page, spin)

    def __init__(
        self,
        link: Link,
        device_type: str,
        waits: Waits,
        *,
        view: Callable[[mmap.mmap], Any] = memoryview,
        pack: Callable[..., None] = REST.pack_into,
        unpack: Callable[..., Any] = WORDS.unpack_from,
        fence: Callable[[], None] = fence,
        looks: int = LOOKS,
        poll: Callable[[], select.poll] = select.poll,
        read: Callable[[int, int], bytes] = os.read,
        write: Callable[[int, bytes], int] = os.write,
        close: Callable[[int], None] = os.close,
    ) -> None:
        """The keywords are what touches the page and the doorbells: a test looks at each step."""
        assert link.page is not None
        self.device_type = device_type
        self._waits = waits
        self._spin = link.spin
        # SAFETY: the views are released before the mapping is closed. Whatever a hostile peer stores there
        # is read as integers and bytes, of a size that is fixed or checked.
        self._page = link.page
        self._data = view(link.page)
        self._words = self._data.cast("Q")
        self.bell_of_device, self.doorbell = link.vmm
        self._pack = pack
        self._unpack = unpack
        self._fence = fence
        self._looks = range(looks)
        self._poll = poll
        self._read = read
        self._write = write
        self._close = close
        self._seen = 0
        self._may_spin = False
        self._slow = 0  # requests since the last question whether this one may spin

    @property
    def answered(self) -> int:
        """How many requests there have been, roughly: `SpinPermits` compares it with itself."""
        return self._seen >> 32

    def allow_spinning(self, allowed: bool) -> None:
        """See Spinner."""
        # Whoever spins just now on the strength of the old value gives up after `LOOKS`, and rings.
        self._may_spin = allowed
        # The right moves under the lock of the channel that gets it: this one may just have been closed.
        with suppress(ValueError):
            self._words[page_layout.MAY_SPIN] = int(allowed)

    def exchange_words(self, first: int, now: int, value: int, offset_and_length: int) -> Words:
        """See Transport."""
        words = self._words
        self._pack(self._data, _REST_AT, now, value, offset_and_length)
        if self._may_spin:
            seen = self._seen
            words[_REQUEST_WORD] = first
            slept = words[_DEVICE_WAITS]
            if slept:
                self._ring()
            for _ in self._looks:
                if words[_REPLY_WORD] != seen:
                    break
            else:
                self._sleep_late(slept)
            if slept:
                self._had_slept()
        else:
            self._ring_and_sleep(first)
        copied: Words = self._unpack(self._data, _REPLY_AT)
        self._seen = copied[0]
        return copied

    def _copied(self) -> Words:
        """The header of the reply that has come."""
        copied: Words = self._unpack(self._data, _REPLY_AT)
        self._seen = copied[0]
        return copied

    def payload(self, words: Words) -> bytes:
        """See Transport: a copy of as much as the copied header announces."""
        length = words[3] >> 32
        if length > MAX_PAYLOAD:
            raise MisusedError(f"a payload of {length} bytes, at most {MAX_PAYLOAD} fit")
        return bytes(self._data[_PAYLOAD_AT : _PAYLOAD_AT + length])

    def exchange(self, sent: bytes, slices: int | None) -> bytes:
        """See Transport."""
        words = self._words
        spins = slices is None and self._may_spin  # the vCPU thread, as in `exchange_words`
        if not spins:
            # VMM_WAITS goes up first: whenever the device process answers, it rings.
            words[_VMM_WAITS] = 1
        self._data[_REST_AT : page_layout.REQUEST + len(sent)] = sent[8:]
        words[_REQUEST_WORD] = int.from_bytes(sent[:8], "little")
        if spins:
            slept = words[_DEVICE_WAITS]
            if slept:
                self._ring()
            if not any(words[_REPLY_WORD] != self._seen for _ in self._looks):
                self._sleep_late(slept)
            if slept:
                self._had_slept()
        else:
            self._fence()
            if words[_DEVICE_WAITS]:
                self._ring_now()
            self._sleep(slices)
        copied = self._copied()
        return frame_of(copied, self.payload(copied))

    # --- Waiting ----------------------------------------------------------------------------------------

    def _ring(self) -> None:
        try:
            self._write(self.bell_of_device, DOORBELL)
        except OSError as error:
            if self._words[_REPLY_WORD] == self._seen:
                raise EndedError(error.strerror) from error

    def _sleep_late(self, slept: int) -> None:
        """The reply has taken longer than spinning is good for. If the process had not `slept` when it was
        asked, somebody else has its CPU for a moment, or it is about to sleep, too.
        """
        began = time.monotonic_ns()
        self._fence()
        if self._words[_DEVICE_WAITS]:
            self._ring()
        if not self._nap():
            if self._spin is not None:
                self._spin.crowded(self)
            self._sleep()
        elif self._spin is not None and not slept:
            self._spin.late(self, time.monotonic_ns() - began)

    def _nap(self) -> bool:
        """Wait for the reply at the doorbell, for a moment. Whether it has come."""
        words = self._words
        words[_VMM_WAITS] = 1
        self._fence()
        poll = None
        for _ in range(NAP_RINGS):
            if words[_REPLY_WORD] != self._seen:
                words[_VMM_WAITS] = 0
                return True
            if poll is None:
                poll = self._poll()
                poll.register(self.doorbell, select.POLLIN)
            if not poll.poll(NAP_MS) or not self._read(self.doorbell, DOORBELLS_READ):
                break
        return False

    def _had_slept(self) -> None:
        if self._spin is not None:
            self._spin.asleep(self)

    def _ring_and_sleep(self, first: int) -> None:
        words = self._words
        words[_VMM_WAITS] = 1
        words[_REQUEST_WORD] = first
        self._ring()
        self._sleep()
        self._slow += 1
        if self._slow % ASK_EVERY == 0:
            self._ask_to_spin()

    def _ask_to_spin(self) -> None:
        if self._spin is not None:
            self._spin.wanted_by(self)

    def _sleep(self, slices: int | None = None) -> None:
        """Wait for the reply at the doorbell: for ever, or for so many slices."""
        words = self._words
        words[_VMM_WAITS] = 1
        self._fence()
        poll = None
        rings = 0
        patience = slices or 0
        while words[_REPLY_WORD] == self._seen:
            if slices is not None:
                if poll is None:
                    poll = self._poll()
                    poll.register(self.doorbell, select.POLLIN)
                if not poll.poll(0):
                    if not self._waits(poll, patience):
                        raise OverdueError(slices)
                    patience //= 2  # or bells for nothing would make the wait endless
            rings += 1
            if rings > MAX_IDLE_RINGS:
                raise MisusedError("it rings and rings, and does not answer")
            if not self._read(self.doorbell, DOORBELLS_READ):
                if words[_REPLY_WORD] == self._seen:
                    raise EndedError("its channel ended")
                break
        words[_VMM_WAITS] = 0

    def _ring_now(self) -> None:
        # Never waits for room, as the main thread must not: bells that nobody took ring already.
        poll = self._poll()
        poll.register(self.bell_of_device, select.POLLOUT)
        if any(mask & select.POLLOUT for _, mask in poll.poll(0)):
            self._ring()

    def close(self) -> None:
        """See Transport."""
        if self.doorbell < 0:
            return
        if self._spin is not None:
            self._spin.replaced(self)
        for descriptor in (self.bell_of_device, self.doorbell):
            self._close(descriptor)
        for view in (self._words, self._data):
            view.release()
        with suppress(BufferError):  # a device thread that has not ended yet still looks at it
            self._page.close()
        self.bell_of_device = self.doorbell = -1


assert page_layout.REPLY + MAX_FRAME <= page_layout.FLAGS
