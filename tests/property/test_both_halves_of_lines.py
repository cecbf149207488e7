"""Interrupt lines in pure Python and compiled, against each other: what the controllers are told."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base.compiled import compiled, why_not_built
from kvmbox.contract.model import NO_RISE
from kvmbox.host.interrupt_lines import InterruptRouter

pytestmark = pytest.mark.skipif(why_not_built() is not None, reason=f"compiled: {why_not_built()}")

GSIS: Final = (4, 4, 8)
SOURCE: Final = st.integers(0, len(GSIS))  # the last one may take line 4
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("level"), SOURCE, st.integers(0, 1)),
        st.tuples(st.just("level"), SOURCE, st.integers(0, 1)),
        st.tuples(st.just("coalesced"), SOURCE, st.integers(1, 3)),
        st.tuples(st.just("announce"), SOURCE, st.integers(0, 1)),
        st.tuples(st.just("ahead"), SOURCE, st.just(0)),
        st.tuples(st.just("settle"), SOURCE, st.just(0)),
        st.tuples(st.just("take"), st.just(0), st.integers(0, 1)),
        st.tuples(st.just("detach"), st.just(0), st.just(0)),
        st.tuples(st.just("attach"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


def told(router: InterruptRouter, steps: list[tuple[str, int, int]]) -> list[tuple[int, ...]]:
    """What the controllers were told, and what each line counts."""
    changes: list[tuple[int, ...]] = []

    def set_line(gsi: int, level: int) -> None:
        changes.append((gsi, level))

    sources = [router.source(gsi) for gsi in GSIS]
    taker, take = router.replacing_source(4)
    sources.append(taker)
    router.attach(set_line)
    for what, number, value in steps:
        source = sources[number]
        match what:
            case "level":
                source(value, 0)
            case "coalesced":
                source(1, value)
            case "announce":
                source.announce(5 if value else NO_RISE)
            case "ahead":
                source.raise_ahead()
            case "settle":
                source.settle()
            case "take":
                take(value)
            case "detach":
                router.detach()
            case "attach":
                router.attach(set_line)
    router.close()
    lines = sorted(router.lines.items())
    return changes + [(gsi, line.raised, line.coalesced, line.asserted) for gsi, line in lines]


@given(steps=STEPS)
def test_both_halves_tell_the_controllers_the_same(steps: list[tuple[str, int, int]]) -> None:
    compiled_router = compiled("loop", "CompiledRouter")(compiled("loop", "CompiledClock")())
    assert told(compiled_router, steps) == told(InterruptRouter(), steps)
