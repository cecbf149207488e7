"""The layout of the memory that a VMM and a device process share with `--ipc shm`, and how its parties wait.

One request and one reply fit in it, each a frame as on any other channel (`protocol`), and three flags on
cache lines of their own:

    0      request: frame of up to 4096 bytes      written by the VMM
    4096   reply: the same                          written by the device process
    8192   DEVICE_WAITS: it is about to sleep       written by the device process
    8256   VMM_WAITS: the VMM is about to sleep     written by the VMM
    8320   MAY_SPIN: it may wait by spinning        written by the VMM

Handing over. The first word of a frame holds its sequence number, so it differs from the word before it.
Whoever writes a frame stores that word last, in one store of eight bytes; whoever waits for a frame looks at
that word until it changes, and then copies. x86 keeps stores, and loads, in order, so the rest of the frame
is there. What the VMM copied it checks, and it never looks at the shared original again: the device process
may rewrite it at any time, to no effect.

Sleeping. A party that has spun for long enough, or must not spin, raises its flag, looks once more, and
then reads its doorbell, a pipe; the other party looks at the flag after it has handed over, and rings if it
is up. x86 lets the load of the flag overtake the store of the frame, so that both could miss each other. A
fence after each store would prevent that and cost every exit 65 ns. But the party that hands over a request
waits for the reply, and the one that hands over a reply waits for the next request. So both look at the
flag a second time, behind a fence, before they go to sleep themselves: whoever was missed is found then. A
doorbell rung once too often costs a turn of the loop, one that is missing cannot be.
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
