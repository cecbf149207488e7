"""Compiled code whose loads from shared memory spoil what they load: a second look sees something else.

`spoil` changes `volatile.h` of a scratch copy. There, `python -m tests.support.spoiled rings` walks all small
rings in memory that is spoilt so, and `page` takes replies from a page that is. Only these two ranges are
spoilt, so the rest of the compiled code works as ever.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any, Final, cast

from kvmbox.contract.device_spec import Queues
from kvmbox.wire import page_layout
from kvmbox.wire.protocol import MAX_FRAME
from tests.fuzz.frames import Liar
from tests.fuzz.plants import SOUND
from tests.fuzz.targets import RealTarget
from tests.support.halves import compiled_half
from tests.support.small_rings import walk_all
from tests.support.virtio_driver import RealMemory
from tools.scratch import Scratch

HEADER: Final = "kvmbox/fast/volatile.h"
FRAMES: Final = 20_000
_SPOIL: Final = """
__attribute__((visibility("default"))) uint8_t *spoil_from, *spoil_to;
static inline void spoil(const void *place, size_t size)
{
    if ((uint8_t *)place >= spoil_from && (uint8_t *)place + size <= spoil_to)
        __builtin_memset((void *)place, 0xFF, size);
}
"""
_LOAD: Final = "{ return __atomic_load_n(place, __ATOMIC_ACQUIRE); }"
_COPY: Final = "    __builtin_memcpy(to, from, size);\n"


def spoil(scratch: Scratch) -> None:
    """Change the copy."""
    scratch.replace(HEADER, "#include <stdint.h>\n", f"#include <stdint.h>\n{_SPOIL}")
    for kind, name in (("uint64_t", "load"), ("uint16_t", "load_short")):
        head = f"static inline {kind} {name}(const {kind} *place) "
        load = f"{kind} found = __atomic_load_n(place, __ATOMIC_ACQUIRE);"
        scratch.replace(HEADER, head + _LOAD, f"{head}{{ {load} spoil(place, sizeof found); return found; }}")
    scratch.replace(HEADER, _COPY, f"{_COPY}    spoil(from, size);\n")


def _limit(start: int, size: int) -> None:
    from kvmbox.fast import vmm

    library = ctypes.CDLL(str(vmm.__file__))
    ctypes.c_void_p.in_dll(library, "spoil_from").value = start
    ctypes.c_void_p.in_dll(library, "spoil_to").value = start + size


def rings() -> None:
    """Walk them."""
    memory = RealMemory(1 << 16)
    queues = compiled_half().queues(Queues(1), memory, lambda _settle: False)
    region = memory.regions[0]
    for size in (1, 2, 4):
        good, bad = walk_all(
            size, cast(Any, memory), queues.new_ring, lambda: _limit(region.host_address, region.size)
        )
        assert good
        assert bad


class SpoiltPage(RealTarget):
    """The page is spoilt behind the first word of a reply, which is polled."""

    def _open(self) -> None:
        super()._open()
        page = cast(mmap.mmap, self._link.page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(page)) + 8 * page_layout.REPLY_WORD + 8
        _limit(start, MAX_FRAME - 8)


def page() -> None:
    """Take replies."""
    target, liar = SpoiltPage(SOUND, "shm"), Liar(1)
    for _ in range(FRAMES):
        target.step(liar)
    target.close()
    assert target.accepted > 0.1 * FRAMES


if __name__ == "__main__":
    {"rings": rings, "page": page}[sys.argv[1]]()
