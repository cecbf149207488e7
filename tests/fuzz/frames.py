"""Hostile replies.

A case begins with a reply that an honest process could give, and has nothing, or a few things, wrong: fields,
bits, lengths, an effect that was not granted, the reply to another request, an error frame, or all of it.
"""

from __future__ import annotations

import random
import struct
from typing import Final

from tests.support.judge import ASKS, EFFECT, HEADER, MAX_FRAME, NO_DEADLINE, NOW, SNAPSHOT, Ask

NUMBERS: Final = (0, 1, 2, 3, 7, 0x7F, 0x80, 0x81, 0xFF, 0x100, 0xFFF, 0x1000, 0x1001, 0xFFFF, 1 << 31)
LARGE: Final = ((1 << 32) - 1, 1 << 32, 1 << 63, NO_DEADLINE, NOW, NOW + 1, NOW - 1)
WIDTHS: Final = (8, 8, 8, 8, 32, 64, 64, 32, 32)


class Liar:
    """A source of replies."""

    def __init__(self, dice: random.Random | int) -> None:
        """The choices come from dice, or from a seed."""
        self.dice = random.Random(dice) if isinstance(dice, int) else dice

    def ask(self) -> Ask:
        return self.dice.choice(ASKS)

    def number(self, bits: int) -> int:
        """Any number of so many bits, the telling ones more often."""
        dice = self.dice
        way = dice.random()
        if way < 0.4:
            return dice.choice(NUMBERS) & ((1 << bits) - 1)
        if way < 0.6:
            return dice.choice(LARGE) & ((1 << bits) - 1)
        return dice.getrandbits(bits)

    def effect(self, ask: Ask) -> bytes:
        """One effect, as it may be or nearly so."""
        dice = self.dice
        tag = dice.randrange(1, 9)
        data = b""
        fields = [tag, 1 if tag in (3, 4, 5) else 0, 0, 0, 0]
        if tag == 1:
            fields[2:] = [dice.randrange(2), dice.randrange(2), 0]
        elif tag == 2:
            data = dice.randbytes(dice.randrange(20))
            fields[4] = len(data)
        elif tag == 3:
            fields[4] = dice.randrange(100)
        elif tag > 5:  # of these, only what is read from the first resource is granted
            fields[2:] = [dice.randrange(4), int(tag == 8), self.number(32)]
            words = (0 if dice.random() < 0.9 else self.number(64), self.number(64))
            data = struct.pack("<QQ", *words) if tag > 6 else b""
            for _ in range(fields[2]):
                data += struct.pack("<QI", self.number(64), dice.randrange(40))
        if dice.random() < 0.1:
            place = dice.randrange(5)
            fields[place] = self.number(32 if place == 4 else 8)
        return EFFECT.pack(*fields) + data

    def reply(self, ask: Ask, sequence: int) -> bytes:
        """A reply to `ask`, as it has to be or nearly so."""
        dice = self.dice
        way = dice.random()
        if way < 0.01:
            return dice.randbytes(dice.randrange(80))
        if way < 0.012:
            return dice.randbytes(32) + bytes(MAX_FRAME - 40 + dice.randrange(20))
        count = 0 if dice.random() < 0.5 else dice.randrange(1, 4)
        body = b"".join(self.effect(ask) for _ in range(count))
        if ask.kind == SNAPSHOT or dice.random() < 0.03:
            body += dice.randbytes(dice.randrange(10))
        if way < 0.014:
            body += bytes(MAX_FRAME - HEADER.size - len(body) + dice.randrange(-1, 2))
        value = dice.choice((0, ask.limit, ask.limit >> 1))
        deadline = dice.choice((NO_DEADLINE, NOW + 1, NOW + 500, NOW))
        fields = [*(ask.kind | 0x80, ask.device, ask.size, count, sequence, deadline, value, 0, len(body))]
        if way < 0.05:  # late, twice, or to a request that never was
            fields[4] = (sequence + dice.choice((-1, -2, 1, 1 << 31))) & 0xFFFF_FFFF
        elif way < 0.08:
            fields[0] = 0xFF
        elif way < 0.4:
            place = dice.randrange(9)
            fields[place] = self.number(WIDTHS[place])
        frame = HEADER.pack(*fields) + body
        if 0.4 < way < 0.5:
            changed = bytearray(frame)
            changed[dice.randrange(len(frame))] ^= 1 << dice.randrange(8)
            return bytes(changed)
        if 0.5 < way < 0.53:
            return frame[: dice.randrange(len(frame))]
        if 0.53 < way < 0.54:
            return frame + dice.randbytes(dice.randrange(1, 9))
        return frame
