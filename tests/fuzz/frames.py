"""Hostile replies, and what a channel has to make of each: written apart from the code that is judged.

A case begins with a reply that an honest process could give, and has nothing, or a few things, wrong: fields,
bits, lengths, an effect that was not granted, the reply to another request, an error frame, or all of it.
"""

from __future__ import annotations

import random
import struct
from typing import Final, NamedTuple

NOW: Final = 1_000
HEADER: Final = struct.Struct("<4BI2Q2I")
EFFECT: Final = struct.Struct("<4BI")
NO_DEADLINE: Final = (1 << 64) - 1
MAX_FRAME: Final = 4096

HELLO, READ, WRITE, ADVANCE, RECEIVE, RESET, SNAPSHOT, RESTORE = range(1, 9)
WRITE_RUN, INDEXED = 10, 11
ACCESSES: Final = (READ, WRITE, INDEXED)
WITHOUT_EFFECTS: Final = (HELLO, SNAPSHOT, RESTORE)

# What the devices of the fuzzed process are granted. Device 0: two interrupt lines, output, and transfers
# from a resource of at most two ranges and TRANSFER_SIZE bytes. Device 1: input room, reset, stop. Device 2:
# nothing.
TRANSFER_SIZE: Final = 64
DEVICES: Final = 3
Log = list[tuple[object, ...]]


class Ask(NamedTuple):
    """A request of the VMM, and the largest value of a reply to it."""

    kind: int
    device: int
    size: int
    limit: int


ASKS: Final = (
    *(Ask(READ, device, size, (1 << 8 * size) - 1) for device in range(DEVICES) for size in (1, 2, 4, 8)),
    *(Ask(WRITE, device, size, 0) for device in range(DEVICES) for size in (1, 2, 4, 8)),
    Ask(INDEXED, 0, 1, 0xFF),
    Ask(ADVANCE, 0, 0, 0),
    Ask(RECEIVE, 1, 0, 5),
    Ask(RESET, 0, 0, 0),
    Ask(WRITE_RUN, 0, 0, 0),
    Ask(SNAPSHOT, 1, 0, 100),
    Ask(HELLO, 0, 0, 0xFFFF_FFFF),
    Ask(RESTORE, 0, 0, 1),
)


class Verdict(NamedTuple):
    """What has to come of a reply. `log` is what is applied; `error` how a refusal has to begin."""

    value: int
    payload: bytes
    log: Log
    error: str = ""


GONE: Final = "is gone: "
FAILED: Final = "failed: "
BROKEN: Final = "broke the protocol: "


def refuse(how: str) -> Verdict:
    return Verdict(0, b"", [], how)


def judge(ask: Ask, sequence: int, frame: bytes) -> Verdict:
    """The definition of a good reply, and of whom to blame for another one."""
    if not frame:
        return refuse(GONE)
    if not HEADER.size <= len(frame) <= MAX_FRAME:
        return refuse(BROKEN)
    kind, device, size, count, number, deadline, value, zero, length = HEADER.unpack_from(frame)
    body = frame[HEADER.size :]
    if length != len(body):
        return refuse(BROKEN)
    if (kind, device, size, number, zero) != (ask.kind + 128, ask.device, ask.size, sequence, 0):
        return refuse(FAILED if kind == 0xFF else BROKEN)
    if value > ask.limit or (ask.kind == ADVANCE and deadline <= NOW):
        return refuse(BROKEN)
    if count and ask.kind in WITHOUT_EFFECTS:
        return refuse(BROKEN)
    applied: Log = []
    for _ in range(count):
        if len(body) < EFFECT.size:
            return refuse(BROKEN)
        tag, index, pin, level, argument = EFFECT.unpack_from(body)
        body = body[EFFECT.size :]
        may_stop = (ask.kind, ask.device, index) == (WRITE, 1, 1)
        if tag == 1 and index == 0 and pin < 2 and (level == 1 or (level == 0 and argument == 0)):
            applied.append(("irq", pin, level, argument))
        elif tag == 2 and index == 0 and not pin | level and argument <= len(body):
            applied.append(("output", body[:argument]))
            body = body[argument:]
        elif tag == 3 and index == 1 and not pin | level:
            applied.append(("room", argument))
        elif tag == 4 and may_stop and not pin | level and not argument:
            applied.append(("reset",))
        elif tag == 8 and index == 0 and level == 1 and pin < 3 and len(body) >= 16 + 12 * pin:
            resource, offset = struct.unpack_from("<QQ", body)
            ranges = [struct.unpack_from("<QI", body, 16 + 12 * number) for number in range(pin)]
            if resource or sum(size for _, size in ranges) > TRANSFER_SIZE:
                return refuse(BROKEN)
            applied.append(("transfer", argument, offset, ranges, True))
            body = body[16 + 12 * pin :]
        elif tag == 5 and may_stop and not pin | level and not argument:
            applied.append(("stop", 3, ask.size, 0x55))
        else:
            return refuse(BROKEN)
    if body and ask.kind != SNAPSHOT:
        return refuse(BROKEN)
    return Verdict(value, body, applied)


NUMBERS: Final = (0, 1, 2, 3, 7, 0x7F, 0x80, 0x81, 0xFF, 0x100, 0xFFF, 0x1000, 0x1001, 0xFFFF, 1 << 31)
LARGE: Final = ((1 << 32) - 1, 1 << 32, 1 << 63, NO_DEADLINE, NOW, NOW + 1, NOW - 1)
WIDTHS: Final = (8, 8, 8, 8, 32, 64, 64, 32, 32)


class Liar:
    """A source of replies. All of them come from one seed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

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
