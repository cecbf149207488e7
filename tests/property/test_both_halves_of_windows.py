"""Windows in pure Python and in compiled code against each other: the same exits of a scripted vCPU.

And both against a list of bytes: what a guest reads is what the medium has, and the other way round.
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvmbox.base.compiled import why_not_built
from tests.support import window_disk
from tests.support.halves import Half, built_halves
from tests.support.loop_rig import Rig
from tests.support.scripted_vcpu import IN, OUT
from tests.support.window_disk import FLUSH, LATER, READ, SECTOR, WRITE
from tests.support.window_rig import CONTENT, PORT, SECTORS, WindowRig

HALVES: Final = built_halves()

Step = tuple[str, int, int, int]

STEPS: Final = st.lists(
    st.one_of(
        st.tuples(
            st.just("command"),
            st.sampled_from([READ, READ, WRITE, WRITE, FLUSH, window_disk.NONE, READ | LATER, WRITE | LATER]),
            st.integers(0, SECTORS),
            st.integers(0, 3),
        ),
        st.tuples(
            st.sampled_from(["in", "in", "out", "out"]),
            st.sampled_from([2, 2, 2, 4, 4, 1]),
            st.sampled_from([0, 0, 0, 0, 2]),
            st.sampled_from([1, 1, 1, 2, 127, 128, 255, 256, 300]),
        ),
        st.tuples(st.just("words"), st.sampled_from([2, 4]), st.sampled_from([IN, OUT]), st.integers(1, 260)),
        st.tuples(st.sampled_from(["errand", "waits", "status"]), st.just(0), st.just(0), st.just(0)),
    ),
    max_size=30,
)


def run(half: Half, steps: list[Step]) -> tuple[object, ...]:
    """All that is left of a loop with these exits."""
    disk, loop = WindowRig(half), Rig(half)
    loop.ports.attach(disk.mapping)
    completions: list[bytes] = []
    data = bytes((5 * place + 1) & 0xFF for place in range(1300))

    def port(direction: int, number: int, size: int, count: int = 1) -> None:
        loop.port(direction, number, size=size, count=count, data=data[: size * count])
        length = size * count
        loop.peek(lambda: completions.append(loop.data(length)))

    for what, *(first, second, third) in steps:
        match what:
            case "command":
                for register, value in ((1, third), (2, second), (3, first)):
                    loop.port(OUT, PORT + register, data=bytes((value,)))
            case "in" | "out":
                port(IN if what == "in" else OUT, PORT + second, first, third)
            case "words":
                for _ in range(third):
                    port(second, PORT, first)
            case "status":
                port(IN, PORT + 3, 1)
            case "waits":
                loop.peek(lambda: _toggle(disk))
            case _:
                loop.peek(lambda: disk.do_errand() if disk.host.errands else None)
    port(IN, PORT + 3, 1)  # what compiled code has told late is told now
    loop.play()
    window = disk.window
    return (
        completions,
        disk.store.calls,
        bytes(disk.store.data),
        disk.host.log,
        (window.use, window.position, window.end, window.state()),
        (disk.model.snapshot(), disk.model.written),
        (disk.proxy.reads, disk.proxy.writes),
        [(what, value) for what, value in loop.loop.recent],
        (loop.loop.routes.exit_count, loop.loop.routes.port_exits),
    )


def _toggle(disk: WindowRig) -> None:
    disk.store.waits = not disk.store.waits
    disk.store.writes_now = not disk.store.writes_now


@pytest.mark.skipif(len(HALVES) < 2, reason=f"compiled: {why_not_built()}")
@settings(max_examples=150)
@given(STEPS)
@example([("command", READ, 0, 1), ("words", 2, IN, 257), ("status", 0, 0, 0)])
@example([("command", WRITE, 7, 2), ("words", 4, OUT, 256), ("status", 0, 0, 0)])
@example([("waits", 0, 0, 0), ("command", FLUSH, 0, 0), ("command", WRITE, 0, 0), ("errand", 0, 0, 0)])
def test_loops_serve_windows_alike(steps: list[Step]) -> None:
    pure, compiled = (run(half, steps) for half in HALVES)
    assert compiled == pure


@pytest.mark.parametrize("half", HALVES, ids=lambda half: "compiled" if half.is_compiled else "pure")
@settings(max_examples=60)
@given(pieces=st.lists(st.tuples(st.sampled_from([2, 4]), st.integers(1, 300)), min_size=1, max_size=40))
def test_bytes_are_those_of_the_medium_however_they_are_asked_for(
    half: Half, pieces: list[tuple[int, int]]
) -> None:
    disk = WindowRig(half)
    disk.command(READ, 1, 4)
    wanted, read = CONTENT[SECTOR : 5 * SECTOR], b""
    for size, count in pieces:
        # An access across the end of a window is the model's.
        fits = (SECTOR - len(read) % SECTOR) % size == 0
        if len(read) + size * count > len(wanted) or not fits:
            break
        read += disk.ports.read_string(PORT, size, count)
    assert read == wanted[: len(read)]
