"""Every byte of a good reply, with every value that it can have: the channel judges as it is defined."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import pytest

from tests.fuzz.frames import Liar
from tests.fuzz.plants import SOUND
from tests.fuzz.vmm import MADE
from tests.support.judge import (
    ACCESSES,
    ASKS,
    EFFECT,
    HEADER,
    NO_DEADLINE,
    WRITE,
    Ask,
    judge,
)

pytestmark = pytest.mark.thorough

DEVICE_0, DEVICE_1 = (Ask(WRITE, device, 1, 0) for device in (0, 1))
EFFECTS: Final = (
    (DEVICE_0, EFFECT.pack(1, 0, 1, 1, 0)),
    (DEVICE_0, EFFECT.pack(2, 0, 0, 0, 3) + b"abc"),
    (DEVICE_0, EFFECT.pack(8, 0, 1, 1, 9) + struct.pack("<QQQI", 0, 5, 0x1000, 16)),
    (DEVICE_1, EFFECT.pack(3, 1, 0, 0, 7)),
    (DEVICE_1, EFFECT.pack(4, 1, 0, 0, 0)),
    (DEVICE_1, EFFECT.pack(5, 1, 0, 0, 0)),
)
"""One of each kind, in the reply to a request that may have it."""


def good_replies() -> Iterator[tuple[Ask, bytes]]:
    """One to each request, and one with each effect."""
    seen = set()
    for ask in ASKS:
        if (ask.kind, ask.size) not in seen:
            seen.add((ask.kind, ask.size))
            yield ask, reply(ask, b"")
    yield from ((ask, reply(ask, effect)) for ask, effect in EFFECTS)


def reply(ask: Ask, effect: bytes) -> bytes:
    fields = ask.kind | 0x80, ask.device, ask.size, bool(effect), 1, NO_DEADLINE, 0, 0, len(effect)
    return HEADER.pack(*fields) + effect


class OneByte(Liar):
    """A liar who says what the test wants."""

    def __init__(self, ask: Ask, frame: bytes) -> None:
        super().__init__(0)
        self._ask = ask
        self.frame = bytearray(frame)
        self.place = self.value = 0

    def ask(self) -> Ask:
        return self._ask

    def reply(self, ask: Ask, sequence: int) -> bytes:
        frame = self.frame.copy()
        struct.pack_into("<I", frame, 4, sequence)
        frame[self.place] = self.value
        return bytes(frame)


@pytest.mark.parametrize("target", ["stream", "shared", "pipe", "shm"])
def test_reply_with_one_byte_changed_is_judged_as_the_definition_says(target: str) -> None:
    made = MADE[target](SOUND)
    is_real = target in ("pipe", "shm")  # what is compiled judges the replies to accesses
    for ask, frame in good_replies():
        if is_real and (ask.kind not in ACCESSES or ask.size > 1):
            continue
        assert not judge(ask, 1, frame).error
        liar = OneByte(ask, frame)
        for liar.place in range(len(frame)):
            for liar.value in range(256):
                made.step(liar)
    made.close()
    assert 0.1 * made.frames < made.accepted < 0.9 * made.frames
