"""The layout of the shared memory of `--ipc shm`, and how the VMM and the device process wait.

The memory has room for one request and one reply, each a frame as on any other channel (`protocol`), and for
three flags on separate cache lines:

    0      request: frame of up to 4096 bytes      written by the VMM
    4096   reply: the same                          written by the device process
    8192   DEVICE_WAITS: it is about to sleep       written by the device process
    8256   VMM_WAITS: the VMM is about to sleep     written by the VMM
    8320   MAY_SPIN: it may wait by spinning        written by the VMM

Sending. The first word of a frame holds the sequence number, so it differs from the word of the last frame.
The sender stores this word last, in one store of eight bytes. The receiver polls the word until it changes,
and then copies the frame. x86 keeps the order of stores and the order of loads, so the rest of the frame is
there. The VMM checks the copy, and does not read the shared memory again. So later changes by the device
process have no effect.

Sleeping. A receiver that has polled for long enough, or must not spin, sets its flag, polls once more, and
then reads its doorbell, a pipe. The sender checks the flag after sending, and rings if the flag is set. On
x86 the load of the flag can overtake the store of the frame, so that both sides could miss each other. A
fence after each store would prevent this, but would cost 65 ns per exit. The sender of a request then waits
for the reply, and the sender of a reply waits for the next request. So each side checks the flag a second
time, after a fence, before it sleeps itself, and finds a missed receiver. An unnecessary ring costs one turn
of the loop. A missing ring cannot happen.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

REQUEST: Final = 0
REPLY: Final = 4096
FLAGS: Final = 8192
SIZE: Final = 3 * 4096

# The same places as indices of 64-bit words.
REQUEST_WORD: Final = REQUEST // 8
REPLY_WORD: Final = REPLY // 8
DEVICE_WAITS: Final = FLAGS // 8
VMM_WAITS: Final = (FLAGS + 64) // 8
MAY_SPIN: Final = (FLAGS + 128) // 8

DOORBELL: Final = b"!"
DOORBELLS_READ: Final = 64
"""How many doorbells one read takes: those that were rung once too often go with it."""
