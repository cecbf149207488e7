"""A picture as blocks of colour: how many there are."""

from __future__ import annotations

import random

from kvmbox.host.console.output_stream import CAPACITY
from kvmbox.parts.screen.color_blocks import MOST_BLOCKS, rows_of
from kvmbox.parts.screen.picture import Picture


def test_blocks_are_few_enough_on_a_terminal_of_any_size() -> None:
    noise = Picture(640, 400, random.Random(1).randbytes(3 * 640 * 400))
    rows = rows_of(noise, 1000, 500)
    assert MOST_BLOCKS // 2 < sum(row.count("\u2580") for row in rows) <= MOST_BLOCKS
    assert sum(len(row.encode()) for row in rows) <= CAPACITY // 2
