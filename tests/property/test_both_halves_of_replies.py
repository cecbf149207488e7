"""Lines and output in replies, good ones and lies, to a channel in pure Python and to a compiled one."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.base.compiled import why_not_built
from kvmbox.base.errors import KvmboxError, KvmError
from kvmbox.contract.model import NO_RISE
from kvmbox.remote.channel.grants import Grants
from kvmbox.wire import protocol
from kvmbox.wire.effect_kinds import EFFECT
from kvmbox.wire.protocol import HEADER, NO_DEADLINE
from tests.support.halves import Half, built_halves
from tests.support.judge import NOW, Ask, send

HALVES: Final = built_halves()

pytestmark = pytest.mark.skipif(len(HALVES) < 2, reason=f"compiled: {why_not_built()}")

LINE, OUTPUT = 1, 2
GSIS: Final = ((4, 4, 8), (4,), (300,))  # by device and pin; nobody can set the last one
MOST: Final = (1 << 32) - 1

GOOD_LINE: Final = st.builds(
    lambda place, level, folded: EFFECT.pack(LINE, *place, level, folded * level),
    st.sampled_from([(0, 0), (0, 0), (0, 1), (0, 2), (1, 0)]),
    st.integers(0, 1),
    st.sampled_from([0, 0, 0, 1, 3, MOST]),
)
OTHER: Final = st.builds(
    EFFECT.pack,
    st.sampled_from([LINE, LINE, LINE, OUTPUT, 0, 3, 0xFF]),
    st.sampled_from([0, 1, 2, 3, 0xFF]),
    st.sampled_from([0, 1, 2, 3, 7, 8, 0xFF]),
    st.sampled_from([0, 1, 2, 0xFF]),
    st.sampled_from([0, 1, 5, MOST]),
)
PRINTED: Final = st.builds(
    lambda device, text: EFFECT.pack(OUTPUT, device, 0, 0, len(text)) + text,
    st.sampled_from([0, 0, 1]),
    st.sampled_from([b"a", b"bc", bytes(range(40))]),
)
EFFECTS: Final = st.one_of(
    st.lists(GOOD_LINE, min_size=1, max_size=10),
    st.lists(st.one_of(GOOD_LINE, PRINTED), min_size=1, max_size=10),
    st.lists(st.one_of(GOOD_LINE, GOOD_LINE, PRINTED, OTHER), min_size=1, max_size=6),
)
REPLY: Final = st.tuples(
    st.sampled_from([protocol.READ, protocol.WRITE]),
    EFFECTS,
    st.sampled_from([0, 0, 0, 0, 0, 1, -1]),
    st.sampled_from([b"", b"", b"", b"", b"\0"]),
)
STEP: Final = st.one_of(
    REPLY,
    REPLY,
    REPLY,
    st.tuples(st.just("announce"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("ahead"), st.integers(0, 3)),
    st.tuples(st.just("take"), st.integers(0, 1)),
    st.tuples(st.just("attached"), st.booleans()),
)


def played(half: Half, steps: list[tuple[Any, ...]]) -> list[object]:
    """All that comes of the steps: what the controllers and the console are told, errors, and counts."""
    log: list[object] = []
    router = half.router(half.clock())

    def set_line(gsi: int, level: int) -> None:
        log.append((gsi, level))
        if gsi == 300:
            raise KvmError("no such line")

    sources = [[router.source(gsi) for gsi in gsis] for gsis in GSIS]
    taker, take = router.replacing_source(4)
    router.attach(set_line)
    grants = [
        Grants("a", irq_lines=sources[0], output=log.append),
        Grants("b", irq_lines=sources[1]),
        Grants("c", irq_lines=sources[2]),
    ]
    link = half.pipe.connect([], None)
    requests, replies = link.device
    channel = half.channel("hostile", link, grants, now=lambda: NOW, slice_ms=3_000)
    announced = [*sources[0], taker]
    sequence = 0
    try:
        for what, *details in steps:
            match what:
                case "announce":
                    announced[details[0]].announce(5 if details[1] else NO_RISE)
                case "ahead":
                    announced[details[0]].raise_ahead()
                case "take":
                    taker(1, 0)
                    take(details[0])
                case "attached":
                    router.attach(set_line) if details[0] else router.detach()
                case _:
                    effects, more, stray = details
                    body = b"".join(effects) + stray
                    count = max(len(effects) + more, 0)
                    sequence += 1
                    head = HEADER.pack(
                        what | protocol.REPLY, 0, 1, count, sequence, NO_DEADLINE, 0, 0, len(body)
                    )
                    os.write(replies, head + body)
                    try:
                        log.append(send(channel, Ask(what, 0, 1, 0)))
                    except KvmboxError as error:
                        log.append((type(error), str(error)))
            log.append([(line.raised, line.coalesced, line.asserted) for line in router.lines.values()])
            log.append(str(channel.failure))
            log.append([(one.level, one.ahead) for one in announced])
    finally:
        router.close()
        channel.close()
        os.close(requests)
        os.close(replies)
    return log


@settings(max_examples=400)
@given(st.lists(STEP, min_size=1, max_size=12))
def test_both_halves_apply_replies_alike(steps: list[tuple[Any, ...]]) -> None:
    pure, compiled = (played(half, steps) for half in HALVES)
    assert compiled == pure
