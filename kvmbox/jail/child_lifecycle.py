"""The life of a helper process, from its start to its end, and what it does before it forks others."""

from __future__ import annotations

import gc
import os

from kvmbox.jail import descriptor_passing
from kvmbox.jail.fixed_descriptors import CONTROL_FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def live(life: Callable[[], None], fatal: Callable[[BaseException], bytes]) -> NoReturn:
    """Be a process whose life is `life`. It leaves by _exit, whatever happens.

    `fatal` makes of an exception the frame that tells, on the control socket, why the process gives up.
    """
    status = 1
    try:
        life()
        status = 0
    except BaseException as error:  # noqa: BLE001 - told to the other side, then the process ends
        descriptor_passing.send(CONTROL_FD, fatal(error))
    finally:
        os._exit(status)


def settle() -> list[bytes]:
    """Before a process forks others: let these write to few pages. Returns what is to be kept meanwhile.

    Whoever has imported a lot has freed a lot: most pages of its heap have room for a few objects. Those of a
    fork would lie there, and have a page copied each. So this fills the pools of Python's allocator
    (Objects/obmalloc.c) for 48 to 512 bytes: the next object of such a size begins a new one.
    """
    gc.collect()
    kept = []
    for size in range(48, 513, 16):  # in steps of pools, from the smallest that bytes may have
        own: dict[int, int] = {}  # how many are in each pool
        for _ in range(2000):  # at most, if there is another allocator
            kept.append(bytes(size - 33))
            pool = id(kept[-1]) >> 14
            own[pool] = own.get(pool, 0) + 1
            if own[pool] == ((1 << 14) - 48) // size:
                break  # a whole one: no other had room
    gc.freeze()  # no collection writes into the pages that forks share
    return kept
