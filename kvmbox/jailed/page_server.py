"""The loop of a device process behind shared memory: spin for a while, then sleep at the doorbell.

See `page` for the layout and for why no wake-up is lost. It sleeps in read, like any other device process,
so that read, write and exit are all that it needs here too: no futex, no clock. How long it spins is
counted in looks, since time is an input that it gets with requests only.

Where the time goes: a look costs 60 ns and finds the request with half of one on average; then the header is
unpacked, the model answers (`DeviceServer.answer`), the reply is copied in behind its first word and that
word is stored.
"""

from __future__ import annotations

import os
from struct import Struct

from kvmbox.jailed.server import DEVICE_OF_ROUTE, DeviceServer, error_frame
from kvmbox.wire import page_layout as layout
from kvmbox.wire.page_layout import DOORBELL, DOORBELLS_READ
from kvmbox.wire.protocol import HEADER, REPLY, ROUTE_MASK, WORDS, encode_effects_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable
    from typing import Final

SPIN_LOOKS: Final = 2000
"""How often to look for the next request before sleeping: some 100 µs, which is longer than the guest
takes from one exit to the next in a loop that polls a device."""

_FIRST: Final = 8  # bytes of the first word
_REST: Final = Struct("<QQQ")  # the three behind it
_LENGTH_SHIFT: Final = 32


def serve_page(
    memory: mmap.mmap | memoryview,
    doorbell: int,
    bell_of_vmm: int,
    *,
    server: DeviceServer | None = None,
    read: Callable[[int, int], bytes] = os.read,
    write: Callable[[int, bytes], int] = os.write,
) -> int:
    """Answer requests in `memory` until SHUTDOWN or the doorbell's end of file; returns the exit status.

    `doorbell` is the descriptor to sleep at, `bell_of_vmm` the one that wakes the VMM. A model's exception
    leaves one bounded error frame and ends the loop with status 1.
    """
    server = server or DeviceServer()
    data = memoryview(memory)
    words = data.cast("Q")
    request_word, reply_word = layout.REQUEST_WORD, layout.REPLY_WORD
    reply_at = layout.REPLY
    body_at = reply_at + HEADER.size
    routes, perform = server.routes, server.perform
    unpack_from, pack_rest = WORDS.unpack_from, _REST.pack_into
    looks = range(SPIN_LOOKS)
    seen = 0
    rung = True
    while server.running:
        first = words[request_word]
        if first == seen and words[layout.MAY_SPIN]:
            for _ in looks:
                first = words[request_word]
                if first != seen:
                    break
        if first == seen:
            words[layout.DEVICE_WAITS] = 1
            # The fence. A write releases the GIL, whose mutex is an atomic instruction, and there is nothing
            # else in reach: a lock of Python's reads the clock, which in strict mode is a fault.
            write(bell_of_vmm, b"")
            if not rung and words[layout.VMM_WAITS]:
                write(bell_of_vmm, DOORBELL)
                rung = True
            if words[request_word] == seen and not read(doorbell, DOORBELLS_READ):
                return 0
            words[layout.DEVICE_WAITS] = 0
            continue
        seen = first
        failed = False
        try:
            _, now, value, place = unpack_from(data, layout.REQUEST)
            route = routes.get(first & ROUTE_MASK)
            if route is not None and not place >> _LENGTH_SHIFT:
                value = perform(route, now, value, place)
                effects = server.effects
                if effects:
                    body = encode_effects_of(route[DEVICE_OF_ROUTE], effects)
                    data[body_at : body_at + len(body)] = body
                    pack_rest(data, reply_at + _FIRST, server.deadline, value, len(body) << _LENGTH_SHIFT)
                    words[reply_word] = first | REPLY | len(effects) << 24
                else:
                    pack_rest(data, reply_at + _FIRST, server.deadline, value, 0)
                    words[reply_word] = first | REPLY
                reply = b""
            else:
                end = HEADER.size + (place >> _LENGTH_SHIFT)
                reply = server.handle(bytes(data[layout.REQUEST : layout.REQUEST + end]))
        except Exception as error:  # noqa: BLE001 - whatever a model raises must reach the VMM as a frame
            reply = error_frame(first >> 32, error)
            failed = True
        if reply:
            data[reply_at + _FIRST : reply_at + len(reply)] = reply[_FIRST:]
            words[reply_word] = int.from_bytes(reply[:_FIRST], "little")
        rung = bool(words[layout.VMM_WAITS])
        if rung or failed:
            write(bell_of_vmm, DOORBELL)
        if failed:
            return 1
    return 0
