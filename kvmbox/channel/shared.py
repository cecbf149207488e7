"""The channel in shared memory: a mailbox that both sides look at, and two pipes as doorbells.

`page` has the layout, the order of stores, and why no wake-up is lost. Here is the VMM's side of it.

Nothing is read twice. The reply's first word is looked at until it changes, which is only a hint that there
is something to read; then its header is copied, once, and its payload, once; what is checked and used are
the copies. What the device process does to the page meanwhile, or later, changes nothing.

Spinning costs a CPU that the device process has to itself: it may spin only while `SpinGrants` lets it.
Without that, each request rings the doorbell and the vCPU thread sleeps until the reply rings back.

Where the time goes in `access`: the lock, the clock, three words and one word stored; then some ten looks at
60 ns until the device process, which looks as often, has found the request and answered it; one unpack and
two comparisons. No system call is made.
"""

from __future__ import annotations

import mmap
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from struct import Struct
from typing import Final

from kvmbox.channel.channel import JOURNAL_LIMIT, Channel, Grants, hung_error
from kvmbox.channel.spin import SpinGrants
from kvmbox.errors import DeviceProcessError
from kvmbox.wire import page_layout as layout
from kvmbox.wire import protocol
from kvmbox.wire.page_layout import DOORBELL, DOORBELLS_READ
from kvmbox.wire.protocol import EFFECT, HEADER, MAX_FRAME, MAX_PAYLOAD, WORDS

LOOKS: Final = 800
"""How often the vCPU thread looks for a reply before it sleeps: some 50 µs."""

MAX_IDLE_RINGS: Final = (1 << 16) // DOORBELLS_READ + 64
"""How often a doorbell may be read without a reply being there. An honest device process rings once too often
at most, but each reply that was found before its bell was heard leaves one: up to a pipe full of them.
"""

_pack_rest: Final = Struct("<QQQ").pack_into
_pack: Final = WORDS.pack
_unpack_from: Final = WORDS.unpack_from
_REPLY_BIT: Final = protocol.REPLY
_REST_AT: Final = layout.REQUEST + 8
_REQUEST_WORD: Final = layout.REQUEST_WORD
_REPLY_WORD: Final = layout.REPLY_WORD
_REPLY_AT: Final = layout.REPLY
_PAYLOAD_AT: Final = layout.REPLY + HEADER.size
_EFFECT_SIZE: Final = EFFECT.size
_DEVICE_WAITS: Final = layout.DEVICE_WAITS
_looks: Final = range(LOOKS)


_barrier: Final = threading.Lock()


def fence() -> None:
    """Every store of this thread before it is visible before any load after it.

    Taking a lock and giving it back are atomic instructions, which are full barriers on x86.
    """
    _barrier.acquire()
    _barrier.release()


class SharedChannel(Channel):
    """A `Channel` whose frames lie in shared memory."""

    def __init__(
        self,
        device_type: str,
        page: mmap.mmap,
        bell_of_device: int,
        doorbell: int,
        grants: Sequence[Grants],
        *,
        now: Callable[[], int],
        deadline_changed: Callable[[int, int], None] | None = None,
        spin: SpinGrants | None = None,
    ) -> None:
        """`page` has `page.SIZE` bytes; `bell_of_device` is the pipe that wakes the device process,
        `doorbell` the one that wakes the VMM. `spin` grants the right to spin; without it nobody does.
        """
        super().__init__(device_type, grants, now=now, deadline_changed=deadline_changed)
        self._acquire = self._lock.acquire
        self._release = self._lock.release
        self._spin = spin
        self._slow = 0  # accesses since the last question whether this one may spin
        self._doorbell = -1
        self.adopt(page, bell_of_device, doorbell)

    def adopt(self, page: mmap.mmap, bell_of_device: int, doorbell: int) -> None:
        """From now on talk to another process. The caller holds the lock, or is alone."""
        self.close()
        # SAFETY: the views are released before the mapping is closed. Whatever a hostile peer stores there
        # is read as integers and bytes, of a size that is fixed or checked.
        self._page = page
        self._data = memoryview(page)
        self._words = self._data.cast("Q")
        self._bell_of_device = bell_of_device
        self._doorbell = doorbell
        self._seen = 0
        self._may_spin = False

    @property
    def answered(self) -> int:
        """How many requests there have been, roughly: `SpinGrants` compares it with itself."""
        return self._sequence

    def allow_spinning(self, allowed: bool) -> None:
        """Whether both sides may spin from now on. By the vCPU thread, or while it does not run."""
        self._may_spin = allowed
        self._words[layout.MAY_SPIN] = int(allowed)

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        """See Channel."""
        self._acquire()
        try:
            if self._failure is not None:
                raise self._failure
            sequence = self._sequence = (self._sequence + 1) & 0xFFFF_FFFF or 1
            first = word | sequence << 32
            now = self._now()
            words = self._words
            seen = self._seen
            self.waiting = sequence
            try:
                _pack_rest(self._data, _REST_AT, now, value, offset)
                if self._may_spin:
                    words[_REQUEST_WORD] = first
                    slept = words[_DEVICE_WAITS]
                    if slept:
                        self._ring()
                    for _ in _looks:
                        if words[_REPLY_WORD] != seen:
                            break
                    else:
                        self._sleep_late(slept)
                else:
                    self._ring_and_sleep(first)
                copied = _unpack_from(self._data, _REPLY_AT)
                reply, deadline, result, rest = copied
                self._seen = reply
                if reply == first | _REPLY_BIT and result <= limit and not rest and self.recorder is None:
                    if deadline != self.deadline:
                        self._set_deadline(deadline, now)
                    journal = self.journal
                    if journal is not None:
                        journal.append((first, now, value, offset, deadline, result))
                        if len(journal) >= JOURNAL_LIMIT:
                            self.journal_is_full()
                    return result  # type: ignore[no-any-return]  # struct's words are ints
                length = rest >> 32
                if _EFFECT_SIZE < length <= MAX_PAYLOAD and self.recorder is None and self.journal is None:
                    payload = bytes(self._data[_PAYLOAD_AT : _PAYLOAD_AT + length])
                    if self._prints(first, limit, copied, payload):
                        if deadline != self.deadline:
                            self._set_deadline(deadline, now)
                    else:
                        sent = _pack(first, now, value, offset)
                        result = self._finish(sent, _pack(*copied) + payload, limit)
                else:
                    sent = _pack(first, now, value, offset)
                    result = self._finish(sent, self._with_payload(copied), limit)
            except DeviceProcessError as error:
                sent = _pack(first, now, value, offset)
                result = self._survive(error, sent, limit)[0]
            finally:
                self.waiting = 0
            if self._follow_ups:
                self._follow_up(None)
        finally:
            self._release()
        if self.settle is not None:
            self.settle()
        return result  # type: ignore[no-any-return]  # struct's words are ints

    # --- Waiting ----------------------------------------------------------------------------------------

    def _ring(self) -> None:
        try:
            os.write(self._bell_of_device, DOORBELL)
        except OSError as error:
            if self._words[_REPLY_WORD] == self._seen:
                raise self._gone(error.strerror) from error

    def _sleep_late(self, slept: int) -> None:
        """The reply has taken longer than spinning is good for. The process may be about to sleep, too, if
        it had not `slept` when it was asked.
        """
        began = time.monotonic_ns()
        fence()
        if self._words[_DEVICE_WAITS]:
            self._ring()
        self._sleep()
        if self._spin is not None:
            self._spin.late(self, 0 if slept else time.monotonic_ns() - began)

    def _ring_and_sleep(self, first: int) -> None:
        words = self._words
        words[layout.VMM_WAITS] = 1
        words[_REQUEST_WORD] = first
        self._ring()
        self._sleep()
        self._slow += 1
        if self._spin is not None and not self._slow & 15:
            self._spin.wanted_by(self)

    def _sleep(self, slices: int | None = None) -> None:
        """Wait for the reply at the doorbell: for ever, or for so many slices."""
        words = self._words
        words[layout.VMM_WAITS] = 1
        fence()
        poll = None
        rings = 0
        patience = slices or 0
        while words[_REPLY_WORD] == self._seen:
            if slices is not None:
                if poll is None:
                    poll = select.poll()
                    poll.register(self._doorbell, select.POLLIN)
                if not poll.poll(0):
                    if not self._waits(poll, patience):
                        raise self.fail(hung_error(self.device_type, slices))
                    patience //= 2  # or bells for nothing would make the wait endless
            rings += 1
            if rings > MAX_IDLE_RINGS:
                raise self._break("it rings and rings, and does not answer")
            if not os.read(self._doorbell, DOORBELLS_READ):
                if words[_REPLY_WORD] == self._seen:
                    raise self._gone("its channel ended")
                break
        words[layout.VMM_WAITS] = 0

    def _exchange(self, sent: bytes, slices: int | None) -> bytes:
        words = self._words
        # VMM_WAITS goes up first: whenever the device process answers, it rings.
        words[layout.VMM_WAITS] = 1
        self._data[_REST_AT : layout.REQUEST + len(sent)] = sent[8:]
        words[_REQUEST_WORD] = int.from_bytes(sent[:8], "little")
        fence()
        if words[_DEVICE_WAITS]:
            self._ring_now()
        self._sleep(slices)
        copied = _unpack_from(self._data, _REPLY_AT)
        self._seen = copied[0]
        return self._with_payload(copied)

    def _ring_now(self) -> None:
        # Never waits for room, as the main thread must not: bells that nobody took ring already.
        poll = select.poll()
        poll.register(self._bell_of_device, select.POLLOUT)
        if any(mask & select.POLLOUT for _, mask in poll.poll(0)):
            self._ring()

    def _with_payload(self, copied: tuple[int, ...]) -> bytes:
        """The reply as a frame: the copied header and a copy of as much payload as it announces."""
        length = copied[3] >> 32
        if length > MAX_PAYLOAD:
            raise self._break(f"a payload of {length} bytes, at most {MAX_PAYLOAD} fit")
        return _pack(*copied) + bytes(self._data[_PAYLOAD_AT : _PAYLOAD_AT + length])

    def close(self) -> None:
        """See Channel."""
        if self._doorbell < 0:
            return
        for descriptor in (self._bell_of_device, self._doorbell):
            os.close(descriptor)
        for view in (self._words, self._data):
            view.release()
        with suppress(BufferError):  # a device thread that has not ended yet still looks at it
            self._page.close()
        self._bell_of_device = self._doorbell = -1


assert layout.REPLY + MAX_FRAME <= layout.FLAGS
