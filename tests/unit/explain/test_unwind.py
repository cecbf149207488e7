"""Callers from call frame information, and the top of a stack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from kvmbox.explain.unwind import Frame, Frames, callers_in

Read = Callable[[int, int], int | None]


class Known:
    """Call frame information of functions whose frame has so many words, return address included."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = {int(name[1:], 16): size for name, size in sizes.items()}
        self.asked: list[int] = []

    def caller(self, pc: int, registers: Mapping[str, int], bits: int, read: Read) -> Frame | None:
        self.asked.append(pc)
        word, size = bits // 8, self.sizes.get(pc >> 8)
        if size is None:  # its frame is found by the frame pointer, or nothing is known of it
            return None
        frame = registers["rsp"] + size * word
        target = read(frame - word, word)
        return None if target is None else Frame(target, {"rsp": frame})


def callers(known: Any, pc: int, top: tuple[int, ...], bits: int = 64, most: int = 31) -> list[int]:
    return callers_in(cast(Frames, known), pc, top, bits, most)


@pytest.mark.parametrize("bits", [32, 64])
def test_callers_are_found_up_to_a_function_with_a_frame_pointer(bits: int) -> None:
    known = Known(f1=1, f2=3)
    assert callers(known, 0x104, (0x210, 0, 0, 0x305, 0x405), bits) == [0x210, 0x305]
    assert known.asked == [0x104, 0x20F, 0x304]  # a call is before its return address


def test_word_that_is_no_return_address_or_is_not_there_ends_the_callers() -> None:
    assert callers(Known(f1=2), 0x104, (0x210, 0)) == []
    assert callers(Known(f1=2), 0x104, (0x210,)) == []
    assert callers(Known(), 0x104, (0x210,)) == []


def test_frames_that_do_not_grow_and_endless_recursion_end() -> None:
    assert callers(Known(f1=0), 0x104, (0x110, 0x110)) == []
    assert callers(Known(f1=1), 0x104, (0x110,) * 64, most=5) == [0x110] * 5
