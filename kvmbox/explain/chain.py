"""Return addresses along the chain of frame pointers, as numbers: what a sampler can afford.

No name is looked up, and no frame is checked against the image: `backtrace` does that for one stopped CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from kvmbox.explain.paging import ReadPhysical

PAGE: Final = 4096


def return_addresses(
    frame_pointer: int,
    stack_pointer: int,
    word: int,
    translate: Callable[[int], int | None],
    read: ReadPhysical,
    most: int,
) -> list[int]:
    """At most `most` return addresses, innermost first.

    `word` is the size of an address in bytes. `translate` gives the guest-physical address of a linear one,
    or None. The chain ends where a frame is not above the one before, or not in memory.
    """
    found: list[int] = []
    start_of = functools.cache(lambda page: translate(page * PAGE))
    lowest = stack_pointer
    while len(found) < most and frame_pointer >= lowest and frame_pointer % word == 0:
        page = frame_pointer // PAGE
        start = start_of(page)
        if start is None:
            break
        raw = read(start + frame_pointer % PAGE, min(2 * word, PAGE - frame_pointer % PAGE))
        if len(raw) == word:  # the frame continues on the next page
            start = start_of(page + 1)
            raw += b"" if start is None else read(start, word)
        target = int.from_bytes(raw[word:], "little")
        if len(raw) < 2 * word or target == 0:
            break
        found.append(target)
        lowest = frame_pointer + 2 * word
        frame_pointer = int.from_bytes(raw[:word], "little")
    return found
