"""Return addresses along the chain of frame pointers, and the top of the stack: what a sampler can afford.

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


def words_at(
    stack_pointer: int, count: int, word: int, translate: Callable[[int], int | None], read: ReadPhysical
) -> list[int]:
    """The first `count` words of the stack, or those up to the first that is not in memory."""
    raw = b""
    while len(raw) < count * word:
        at = stack_pointer + len(raw)
        start = translate(at)
        wanted = min(count * word - len(raw), PAGE - at % PAGE)
        piece = b"" if start is None else read(start, wanted)
        raw += piece
        if len(piece) < wanted:
            break
    return [int.from_bytes(raw[at : at + word], "little") for at in range(0, len(raw) - word + 1, word)]
