"""The device process's end of shared memory: spin for a while, then sleep at the doorbell.

`wire.page_layout` describes the layout, and why no wake-up is lost. The port sleeps in read, like every
device process. So read, write and exit are enough here too, without futex and clock. The port counts its
polls to limit spinning, because a device process gets time only with requests.

One poll costs 60 ns, and on average a request is found half a poll after its arrival. Then the header is
unpacked and the model answers. The reply is copied, first without its first word, and then the first word is
stored.
"""

from __future__ import annotations

import os
from struct import Struct

from kvmbox.wire import page_layout
from kvmbox.wire.page_layout import DOORBELL, DOORBELLS_READ
from kvmbox.wire.protocol import HEADER, WORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable
    from typing import Any, Final

    from kvmbox.jail.server import Answer, Words

SPIN_LOOKS: Final = 2000
"""How often to look for the next request before sleeping: some 100 µs, which is longer than the guest
takes from one exit to the next in a loop that polls a device."""

REST: Final = Struct("<QQQ")
"""The words of a header behind the first one."""

_REQUEST_AT: Final = page_layout.REQUEST
_REST_AT: Final = page_layout.REPLY + 8
_PAYLOAD_AT: Final = page_layout.REPLY + HEADER.size
_REQUEST_WORD: Final = page_layout.REQUEST_WORD
_REPLY_WORD: Final = page_layout.REPLY_WORD
_DEVICE_WAITS: Final = page_layout.DEVICE_WAITS
_VMM_WAITS: Final = page_layout.VMM_WAITS
_MAY_SPIN: Final = page_layout.MAY_SPIN


class PagePort:
    """See `serving_loop.Port`. `doorbell` is the descriptor to sleep at, `bell_of_vmm` wakes the VMM."""

    def __init__(
        self,
        memory: mmap.mmap | memoryview,
        doorbell: int,
        bell_of_vmm: int,
        *,
        view: Callable[[Any], Any] = memoryview,
        pack: Callable[..., None] = REST.pack_into,
        unpack: Callable[..., Any] = WORDS.unpack_from,
        looks: int = SPIN_LOOKS,
        read: Callable[[int, int], bytes] = os.read,
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        """The keywords are what touches the memory and the doorbells: a test looks at each step."""
        self._data = view(memory)
        self._words = self._data.cast("Q")
        self._doorbell = doorbell
        self._bell_of_vmm = bell_of_vmm
        self._pack = pack
        self._unpack = unpack
        self._looks = range(looks)
        self._read = read
        self._write = write
        self._seen = 0
        self._rung = True

    def next_request(self) -> Words | None:
        """See Port."""
        words, seen = self._words, self._seen
        while True:
            first = words[_REQUEST_WORD]
            if first == seen and words[_MAY_SPIN]:
                for _ in self._looks:
                    first = words[_REQUEST_WORD]
                    if first != seen:
                        break
            if first != seen:
                self._seen = first
                header: Words = self._unpack(self._data, _REQUEST_AT)
                return header
            words[_DEVICE_WAITS] = 1
            # The fence. A write releases the GIL, whose mutex is an atomic instruction, and there is nothing
            # else in reach: a lock of Python's reads the clock, which in strict mode is a fault.
            self._write(self._bell_of_vmm, b"")
            if not self._rung and words[_VMM_WAITS]:
                self._write(self._bell_of_vmm, DOORBELL)
                self._rung = True
            if words[_REQUEST_WORD] == seen and not self._read(self._doorbell, DOORBELLS_READ):
                return None
            words[_DEVICE_WAITS] = 0

    def frame(self, words: Words) -> bytes:
        """See Port."""
        return bytes(self._data[_REQUEST_AT : _REQUEST_AT + HEADER.size + (words[3] >> 32)])

    def reply(self, answer: Answer) -> None:
        """See Port."""
        first, deadline, value, steady, payload = answer
        if payload:
            self._data[_PAYLOAD_AT : _PAYLOAD_AT + len(payload)] = payload
        self._pack(self._data, _REST_AT, deadline, value, len(payload) << 32 | steady)
        words = self._words
        words[_REPLY_WORD] = first
        self._rung = bool(words[_VMM_WAITS])
        if self._rung:
            self._write(self._bell_of_vmm, DOORBELL)

    def leave(self) -> None:
        """See Port: there is no second look whether the VMM waits."""
        if not self._rung:
            self._write(self._bell_of_vmm, DOORBELL)
