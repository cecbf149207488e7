"""Programs for device models, made of bytes: calls at random, and registers in the order of drivers.

Bytes are as even as they come, shrink, and are what a fuzzer changes.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from kvmbox.base.layout import VGA_LATE_WRITES
from kvmbox.contract.model import BEYOND_END, DONE, FAILED, MOVED, NO_SPACE
from kvmbox.devices.e1000.model import OFFER
from kvmbox.devices.qcow2.model import DATA, MAP, MAP_FRAME, OPEN, OPEN_FRAME
from tests.support.dice import Dice
from tests.support.model_variants import REQUEST_BLOCKS
from tests.support.qcow2_images import qcow2

SECOND: Final = 1_000_000_000
LAST_TIME: Final = 1 << 62
"""146 years of guest time: what the VMM stamps at most."""


class Step(NamedTuple):
    """One call of a model: its kind, how far time moves before it, and what is given."""

    kind: str
    jump: int
    offset: int = 0
    size: int = 1
    value: int = 0
    data: bytes = b""


HUGE_JUMPS: Final = (86_400 * SECOND, 100 * 365 * 86_400 * SECOND, LAST_TIME, -LAST_TIME)
FAR_OFFSETS: Final = (8, 9, 127, 255, 256, 1 << 16, (1 << 32) - 1, (1 << 64) - 1)
# Bits, limits, BCD digits, control words, divisors: a register's interesting values are few.
TELLING: Final = (0x00, 0x01, 0x0A, 0x0B, 0x34, 0x70, 0x80, 0x83, 0xB6, 0xD1, 0xE2, 0xFE, 0xFF)


def jump(tape: Dice) -> int:
    """How far time moves: not at all, by some ns, by up to two seconds, back, or by years."""
    kind = tape.byte()
    if kind < 112:
        return 0
    if kind < 160:
        return tape.number(2)
    if kind < 224:
        return tape.number(4) % (2 * SECOND)
    return -tape.number(4) if kind < 240 else HUGE_JUMPS[kind % len(HUGE_JUMPS)]


def access(tape: Dice, kind: str) -> Step:
    """A read or a write anywhere, more often of one of the first registers."""
    offset = tape.byte()
    offset = offset % 8 if offset < 224 else FAR_OFFSETS[offset % len(FAR_OFFSETS)]
    size = (*(1,) * 20, *(2, 4, 8) * 4, 3)[tape.byte() % 33]  # 3: no access has it
    how = tape.byte()
    if how < 128:
        value = tape.byte()
    elif how < 224:
        value = TELLING[how % len(TELLING)]
    else:
        value = tape.number(8)
    return Step(kind, jump(tape), offset, size, value)


def program(*writes: tuple[int, int]) -> list[Step]:
    """Writes that belong together: (offset, value) each."""
    return [Step("write", 0, offset, 1, value) for offset, value in writes]


def uart_program(tape: Dice) -> list[Step]:
    v, w = tape.byte(), tape.byte()
    match tape.byte() % 6:
        case 0:  # FIFOs, interrupts and OUT2, as a driver sets them
            return program((3, 3), (2, 1 | v & 0xC0), (1, w & 0x0F), (4, 0x08))
        case 1:
            return program((3, 0x83), (0, v), (1, w & 0x0F), (3, w >> 6))
        case 2:
            return program((4, 0x10 | v & 0x0F), (0, v), (0, w))
        case 3:
            return program((4, 0x18), (3, 0x43 | v & 0x3C))
        case 4:
            return program(*((0, tape.byte()) for _ in range(v % 20)))
        case _:
            return [*program((2, 1), (1, 1)), Step("receive", 0, data=b"0123456789abcdefgh"[: w % 19])]


def pit_program(tape: Dice) -> list[Step]:
    counter, v = tape.byte() % 3, tape.byte()
    match tape.byte() % 5:
        case 0 | 1:
            return program(
                (3, counter << 6 | 0x30 | v & 0x0F), (counter, tape.byte()), (counter, tape.byte())
            )
        case 2:
            return program((3, counter << 6 | v & 0x3F), (counter, tape.byte()))
        case 3:
            return program((3, 0xC0 | v & 0x3E))
        case _:
            return program((4, v))


def rtc_program(tape: Dice) -> list[Step]:
    v, w = tape.byte(), tape.byte()
    match tape.byte() % 4:
        case 0:
            return program((0, v % 16), (1, w))
        case 1:
            return program((0, 0x0A), (1, 0x20 | v & 0x0F), (0, 0x0B), (1, w & 0x7F))
        case 2 if v < 80:
            return [Step("near", 0, value=2000 * v), *program((0, 10)), Step("read", 0, 1)]
        case 2:
            return program((0, 0x0B), (1, v | 0x80), (0, w % 10), (1, tape.byte()), (0, 0x0B), (1, v & 0x7F))
        case _:
            return [*program((0, 0x0C)), Step("read", 0, 1)]


def i8042_program(tape: Dice) -> list[Step]:
    commands = (0x20, 0x60, 0xA8, 0xAA, 0xC0, 0xD0, 0xD1, 0xD2, 0xD3, 0xD4, 0xE0)
    v, w = tape.byte(), tape.byte()
    match tape.byte() % 5:
        case 4:  # more for the mouse than a queue of it has room for; it may be what it echoes
            given = (0xEE,) * (w & 1) + (v,) * (w % 40)
            return program(*[pair for byte in given for pair in ((1, 0xD4), (0, byte))])
        case 0:
            return program((1, commands[v % len(commands)]), (0, w))
        case 1:  # the mouse, which has its commands there, too
            event = Step("receive", 0, data=bytes((0, v, w, 0, v, 0, w)) * (1 + v % 3))
            return [*program((1, 0xD4), (0, (0xF4, 0xE6 + w % 26)[v % 2]), (1, (0xA7, 0xA8)[w % 2])), event]
        case 2 if v < 60:  # a mouse with a wheel, and with five buttons
            rates = (200, 100, 80) if v < 20 else (200, 200, 80) if v < 40 else (w, w, w)
            knock = [
                (place, value)
                for rate in rates
                for place, value in ((1, 0xD4), (0, 0xF3), (1, 0xD4), (0, rate))
            ]
            steps = program((1, 0xA8), *knock, (1, 0xD4), (0, 0xF2), (1, 0xD4), (0, 0xF4))
            moved = Step("receive", 0, data=bytes((0, w & 0x1F, v, w, w, v, w)))
            return [*steps, moved, *[Step("read", 0, 0)] * (w % 8)]
        case 2:  # the keyboard, which has most of its commands at the end
            return program((0, 0xED + v % 19), (0, w % 8))
        case _:
            keys = Step("receive", 0, data=b"\x1f\x9f~S" * (w % 6))
            return [*program((1, (0xAD, 0xAE, 0xAE)[v % 3])), keys]


def shutdown_program(tape: Dice) -> list[Step]:
    return program(*((0, value) for value in b"Shutdown"[: 1 + tape.byte() % 8]))


def pm_program(tape: Dice) -> list[Step]:
    v = tape.byte()
    match tape.byte() % 4:
        case 0:  # the enables, and the status that may be pending
            return [Step("write", 0, 2, 2, 0x0721 & v * 0x101), Step("write", 0, 0, 2, v * 0x101)]
        case 1:
            return [Step("write", 0, 4, 2, (0x2000, 0x2400, 0x2800, 0x3400)[v % 4])]
        case 2:
            return [Step("read", 0, 8, 4), Step("read", 0, 0, 2)]
        case _:
            return [Step("write", 0, 2, 2, 1), Step("deadline", 0)]


def power_off_program(tape: Dice) -> list[Step]:
    v = tape.byte()
    return [Step("write", 0, (0, 4)[v % 2], (1, 2, 4, 8)[v // 2 % 4], (0x2000, 0x3400)[v // 8 % 2])]


def hpet_program(tape: Dice) -> list[Step]:
    timer, v = 0x100 + 0x20 * (tape.byte() % 3), tape.byte()
    few = tape.number(2)
    match tape.byte() % 6:
        case 0:
            return [Step("write", 0, 0x10, 4, v & 3)]
        case 1:  # type, enable, mode and one of a few routes, so that timers meet on a line
            return [Step("write", 0, timer, 4, v & 0x4E | (v & 0x80) << 1 | (16 + few % 3) << 9)]
        case 2:  # periodic, as its comparator and period are set: often soon
            soon = 1 + few % 200
            conf = 0x4C | v & 2 | (16 + v % 2) << 9 | (v & 0x80) << 1
            return [
                *(
                    Step("write", 0, 0x10, 4, 0),
                    Step("write", 0, 0xF0, 8, 0),
                    Step("write", 0, timer, 8, conf),
                ),
                *(Step("write", 0, timer + 8, 8, soon), Step("write", 0, timer + 8, 8, 1 + few)),
                Step("write", 0, 0x10, 4, 1 | v & 2),
            ]
        case 3:
            return [Step("write", 0, timer + 8 + (v & 4), (4, 8)[not v & 4], tape.number(8))]
        case 4:
            return [Step("write", 0, 0x20, 4, v & 7), Step("read", 0, timer + 8, 8), Step("read", 0, 0xF0, 8)]
        case _:
            near = [Step("write", 0, 0x10, 4, 0), Step("write", 0, 0xF0, 8, (1 << (32, 64)[v & 1]) - 1 - few)]
            return [*near, Step("write", 0, 0x10, 4, 1)]


def fw_cfg_program(tape: Dice) -> list[Step]:
    keys = (0x00, 0x03, 0x19, 0x20, 0x23, 0x24, 0x8003, 0x4000, 0xFFFF)
    select = Step("write", 0, 0, 2, keys[tape.byte() % len(keys)])
    if tape.byte() & 1:
        return [select, *[Step("read", 0, 1)] * (tape.byte() % 150)]
    block = tape.byte() % (len(REQUEST_BLOCKS) + 2) * 16
    return [select, Step("write", 0, 8, 4, int.from_bytes(block.to_bytes(4, "big"), "little"))]


def vga_program(tape: Dice) -> list[Step]:
    v, w = tape.byte(), tape.byte()
    match tape.byte() % 12:
        case 11:
            return [Step("read", 0, 0x10 + v % 16)]
        case 7 | 8:  # what decides whose the window is
            index, value = tape.some(((2, 15), (2, 3), (4, 2), (4, 6), (4, 14), (2, v), (4, v)))
            few = ((5, 0x10), (5, v & 11), (6, 0x0E), (6, 5), (6, 1), (1, v), (3, v), (4, v), (8, v))
            place, kind = tape.some(few)
            return program((0x14, index), (0x15, value), (0x1E, place), (0x1F, kind))
        case 9:
            at = tape.some((0xA0000, 0xB0000, 0xB8000, 0xBFFFC)) + w
            count = tape.some((1, 2, 40, 70))
            return [Step(tape.some(("read", "write")), 0, at, tape.some((1, 2, 4)), v)] * count
        case 10:
            return late_writes(tape)
        case 0:  # the ports in use
            return program((0x12, v), (0x24 - 0x20 * (w & 1), v % 32), (0x25 - 0x20 * (w & 1), w))
        case 1:
            return [Step("write", 0, 0x24, 2, v % 32 | w << 8), Step("read", 0, 0x25)]
        case 2:  # the flip-flop first
            return [Step("read", 0, 0x2A), *program((0x10, v % 32), (0x10, w)), Step("read", 0, 0x11)]
        case 3:
            return [*program((0x14 + 10 * (w & 1), v % 16), (0x15 + 10 * (w & 1), w)), Step("read", 0, 0x15)]
        case 4:
            return program((0x18, v), *[(0x19, tape.byte()) for _ in range(w % 7)])
        case 5:
            return [*program((0x17, v)), *[Step("read", 0, 0x19)] * (w % 7), Step("read", 0, 0x17)]
        case _:
            return [Step("read", v * 100_000, 0x2A - 0x20 * (w & 1)), Step("read", 0, 0x10, 4)]


def late_writes(tape: Dice) -> list[Step]:
    """Writes to the VGA that come late, as one: to the window, or anywhere; often of few values."""
    v, size, at = tape.byte(), tape.some((1, 2, 2, 4)), tape.some((0xA0000, 0xA0000, 0xB0000, 0xB8000))
    words = []
    for number in range(1 + tape.byte() % 90):
        place = tape.number(2) << 4 | tape.byte() % 8 if v > 240 else (at + number * size) << 4 | size
        words.append(place << 32 | tape.some((0x0720, v, v * 0x0101)))
    data = struct.pack(f"<{len(words)}Q", *words)
    if len(words) == 1:
        return [Step("write", 0, VGA_LATE_WRITES, 8, words[0])]
    setting = program((0x14, 4), (0x15, 6), (0x1E, 5), (0x1F, 0), (0x1E, 6), (0x1F, 5 if v & 1 else v & 14))
    return [*(setting if v & 2 else ()), Step("string", 0, VGA_LATE_WRITES, 8, data=data)]


ANSWERS: Final = (DONE, DONE, DONE, MOVED, MOVED, MOVED, FAILED, BEYOND_END, NO_SPACE)


def ide_program(tape: Dice) -> list[Step]:
    v, w = tape.byte(), tape.byte()
    answers = [Step("complete", 0, v & 0xF8, ANSWERS[tape.byte() % len(ANSWERS)], w) for _ in range(v % 8)]
    match tape.byte() % 8:
        case 0:  # an ATA command that is one, at some address near the beginning or the end
            codes = (0x20, 0x24, 0x29, 0x30, 0x34, 0x39, 0x40, 0x70, 0x91, 0xC4, 0xC5, 0xC6, 0xE7, 0xEC)
            place = program(
                (2, w % 20), (3, v), (4, (0, 19)[w & 1]), (5, 0), (6, tape.some((0, 0x40)) | w & 0x3F)
            )
            return [*place, *program((7, codes[tape.byte() % len(codes)])), *answers]
        case 1 | 2:  # a packet
            packets = bytes.fromhex("00 03 12 1a 1b 1e 25 28 2b 42 43 46 4a 5a a8 bd be")
            command = bytes((packets[v % len(packets)], w & 3, 0, 0, 0, w % 80, 0, 0, tape.byte() % 9, 0x10))
            match tape.byte() % 4:
                case 0:  # the tray, locked or not
                    command = tape.some((b"\x1b\0\0\0" + bytes((w & 3,)), b"\x1e\0\0\0" + bytes((v & 1,))))
                case 1:
                    command = command[:1] + tape.randbytes(11)
            words = struct.unpack("<6H", command.ljust(12, b"\0"))
            start = program((6, 0x10), (1, int(w == 255)), (4, tape.byte()), (5, tape.byte() % 16), (7, 0xA0))
            return [*start, *[Step("write", 0, 0, 2, word) for word in words], *answers]
        case 3:
            return [Step("read", 0, 0, (2, 2, 4)[w % 3])] * (v % 100 + 1)
        case 4:
            features = (0x02, 0x03, 0x82, 0xAA, 0x05)
            return [*program((1, features[v % 5]), (2, w), (7, 0xEF)), *answers]
        case 5:
            return program((8, (0, 2, 4, 6, 0x80)[v % 5]))
        case 6:
            others = (0x08, 0x10, 0x90, 0xA1, 0xC8, 0xE0, 0xE1, 0xE3, 0xE5, 0xE6, 0xEA, 0xF8, 0x27, 0x00)
            return [*program((6, 0x40 | w & 0x10), (7, others[v % len(others)])), Step("read", 0, 7)]
        case _:
            return answers


def virtio_program(tape: Dice) -> list[Step]:
    v, w = tape.byte(), tape.byte()
    match tape.byte() % 7:
        case 0:  # as a driver begins, more or less
            return [
                *(Step("write", 0, 0x70, 4, value) for value in (0, 3)),
                *(Step("write", 0, 0x24, 4, 1), Step("write", 0, 0x20, 4, 1 if v < 240 else v)),
                *(Step("write", 0, 0x24, 4, 0), Step("write", 0, 0x20, 4, (v & 3) << 28 | (v & 4) << 13)),
                Step("write", 0, 0x70, 4, 11),
                *_virtio_queue(v % 2, 8),
                *_virtio_queue(1 - v % 2, w),
                Step("write", 0, 0x70, 4, 15),
            ]
        case 1:
            return [*_virtio_queue(v % 3, w)]
        case 2:
            return [Step("write", 0, 0x60 + 4, 4, v), Step("read", 0, 0x60, 4), Step("read", 0, 0x70, 4)]
        case 3:
            waiting = (
                bytes(v % 24) if v < 128 else (tape.some((60, 1518, 100)).to_bytes(2, "little") * (v % 24))
            )
            return [Step("receive", 0, data=waiting), Step("write", 0, 0x50, 4, 0)]
        case 4:
            selector, place = tape.some(((0x14, 0x10), (0x24, 0x20), (0x30, 0x34), (0x30, 0x44)))
            chosen = Step("write", 0, selector, 4, v % 4)
            return [chosen, Step("read", 0, place, 4), Step("write", 0, place, 4, w)]
        case _:
            return [Step("shape", 0, value=w), Step("write", 0, 0x50, 4, v % 3)]


def _virtio_queue(index: int, size: int) -> list[Step]:
    registers = (
        (0x30, index),
        (0x38, size),
        (0x80, 0x1000),
        (0x90, 0x2000),
        (0xA4, size),
        (0x44, size & 1 ^ 1),
    )
    return [Step("write", 0, register, 4, value) for register, value in registers]


def _eeprom_bits(address: int, skipped: int) -> list[Step]:
    """A word of the EEPROM, bit by bit: what selects it, the address behind its code, and what comes back."""
    bits = [0] * (skipped % 3) + [1, 1, 0] + [address >> bit & 1 for bit in range(5, -1, -1)]
    pins = [2, *[2 | bit << 2 | clock for bit in bits for clock in (0, 1)]]
    steps = [Step("write", 0, 0x10, 4, value) for value in pins]
    for _ in range(1 + skipped % 18):
        steps += [Step("read", 0, 0x10, 4), *[Step("write", 0, 0x10, 4, 2 | clock) for clock in (1, 0)]]
    return steps


def e1000_program(tape: Dice) -> list[Step]:
    v, w, index = tape.byte(), tape.byte(), tape.byte() % 2
    ring = (0x2800, 0x3800)[index]
    match tape.byte() % 10:
        case 0:  # as a driver begins, more or less
            areas = [
                Step("write", 0, ring + place, 4, value) for place, value in ((0, v << 4), (8, 128 + w * 64))
            ]
            return [*areas, Step("write", 0, (0x100, 0x400)[index], 4, 2 | w << 3 | v << 16)]
        case 1 | 2:
            return [Step("write", 0, ring + 0x18, 4, v % 16)]
        case 3 | 4:
            address = bytes((v & 1,)) * 6 if w < 200 else b"\xff" * 6
            behind = struct.pack(">HH", tape.some((0x8100, 0x0800)), tape.byte())
            offers = [OFFER.pack(tape.some((10, 70)) * tape.byte(), address, behind) for _ in range(w % 30)]
            return [Step("receive", 0, data=b"".join(offers) + bytes(v % 16 // 15))]
        case 5:
            register = (0x14, 0x20, 0x10, 0xC4, 0xC8, 0xD0, 0xD8)[v % 7]
            return [
                Step("write", 0, register, 4, tape.number(4)),
                Step("read", 0, (register, 0xC0)[w & 1], 4),
            ]
        case 6:
            return _eeprom_bits(v, w)
        case 7:  # what is counted, by its own address or through the window of addresses
            place = 0x4000 + v % 64 * 4 if w < 200 else tape.number(4)
            window = [Step("write", 0, 0x20000, 4, place), Step("read", 0, 0x20004, 4)]
            return [Step("read", 0, place, 4)] if w & 1 else window
        case 8:  # tags and what is filtered by them; the PHY, whose register 0 resets it or loops
            tags = [(0x0, 1 << 30), (0x38, 0x8100), (0x100, 2 | (w & 3) << 18 | (v & 1) << 15 | (v & 4) << 1)]
            phy = [(0x20, 1 << 26 | 1 << 21 | tape.some((0x8000, 0x4000, 0x0200, v)))]
            return [Step("write", 0, place, 4, value) for place, value in (tags if v < 200 else phy)]
        case _:
            registers = (0x0, 0x100, 0x400, ring + 0x10, 0x5400 + v // 8 * 4, 0x20000, 0x20004)
            return [Step("write", 0, registers[v % 7], (4, 8)[w & 1], tape.number(4) & ~(w << 20))]


IMAGE: Final = qcow2({0: b"a", 1: b"", 2: b"b", 70: b"c"}, size=100 * 512, entries={3: 1 << 62, 4: 1 << 40})


def qcow2_program(tape: Dice) -> list[Step]:
    """Questions, and what may be the bytes that they want: those of an image, or of another place in it."""
    place = tape.byte() % 8 * 512
    bytes_of = [
        bytes((DATA,)) + IMAGE[at : at + size] for at, size in ((0, 112), (512, 8), (1024, 512), (place, 8))
    ]
    for number, piece in enumerate(bytes_of):
        if tape.byte() < 60:  # a field of it is another one
            at, size = 1 + 4 * (tape.byte() % (len(piece) // 4 + 1)), tape.some((4, 8))
            field = (
                tape.some((0, 1, 3, 5, 1 << 9, (1 << 8 * size) - 1, tape.number(size))) & (1 << 8 * size) - 1
            )
            bytes_of[number] = (piece[:at] + field.to_bytes(size, "big") + piece[at + size :])[: len(piece)]
        elif tape.byte() < 12:
            bytes_of[number] = piece[: tape.byte()]
    match tape.byte() % 4:
        case 0:
            frames = [OPEN_FRAME.pack(OPEN, len(IMAGE)), bytes_of[0]]
        case 1:
            frames = [MAP_FRAME.pack(MAP, tape.byte() << 9, 1 + (tape.byte() << 8)), bytes_of[1], bytes_of[2]]
        case 2:
            frames = [MAP_FRAME.pack(MAP, tape.number(8), tape.number(4)), *bytes_of[1:3]]
        case _:
            frames = [bytes_of[tape.byte() % 4]]
    return [Step("receive", 0, data=frame) for frame in frames]


def vbe_program(tape: Dice) -> list[Step]:
    """Indices with values; the data port as a word, as two bytes, and behind the index."""
    steps = []
    for _ in range(1 + tape.byte() % 6):
        index, value = tape.byte() % 12, tape.some((0, 1, 8, 0x41, 0x3E80, 0xB0C0, 0xB0C5, tape.number(2)))
        match tape.byte() % 4:
            case 0:
                steps += [Step("write", 0, 0, 4, index | value << 16), Step("read", 0, 0, 4)]
            case 1:
                steps += [Step("write", 0, 0, 2, index), *program((1, value & 0xFF), (2, value >> 8))]
            case _:
                steps += [Step("write", 0, 0, 2, index), Step("write", 0, 2, 2, value)]
        steps.append(Step("read", 0, *tape.some(((0, 2), (1, 1), (2, 2), (2, 1)))))
    return steps


def pci_program(tape: Dice) -> list[Step]:
    """Accesses to registers of a function, more often of those that decode and route."""
    function = tape.some((0, 8, 9, 16, 24, 32, 40, 48, tape.byte()))
    register = tape.some((4, 0x10, 0x14, 0x18, 0x20, 0x24, 0x3C, 0x40, 0x60, 0x61, 0x62, tape.byte()))
    start = Step("write", 0, 0, 4, (tape.byte() > 8) << 31 | function << 8 | register & ~3)
    size, value = tape.some((1, 2, 4)), tape.some((0, 3, 7, 0x407, 0xFFFF_FFFF, 0xC0000000, tape.number(4)))
    place = 4 + (register & 3)
    return [start, Step("write", 0, place, size, value), Step("read", 0, place, size), Step("read", 0, 0, 4)]


def boot_disk_program(tape: Dice) -> list[Step]:
    values = (0, tape.byte()), (4, tape.byte() % 80 << (tape.byte() == 0) * 6), (8, tape.number(4))
    steps = [Step("write", 0, register, 4, value) for register, value in values]
    drive, high = tape.byte() % 4 // 2, tape.byte() == 0
    steps += [Step("write", 0, 0x20, 4, drive), Step("write", 0, 0x18, 4, int(high))]
    steps.append(Step("write", 0, 0x0C, 4, tape.byte() % 4))
    steps += [Step("read", 0, register, 4) for register in (0, 0x0C, 0x10, 0x14, 0x1C)]
    return [*steps, Step("complete", 0, 0, tape.byte() % 7, tape.byte() % 4)]


def testdev_program(tape: Dice) -> list[Step]:
    place = tape.some((tape.byte() % 44, 0x1_0000 + tape.number(2), 0x1_FFFC, 0x2_0000))
    size, value = tape.some((1, 1, 2, 4, 8)), tape.number(8)
    return [Step("write", 0, place, size, value), Step("read", 0, place, size)]


def bios_report_program(tape: Dice) -> list[Step]:
    return [Step("write", 0, tape.byte() % 3 * 4, 4, tape.number(4))]


def reset_control_program(tape: Dice) -> list[Step]:
    return [*program((1, tape.byte())), Step("read", 0, 1)]


COMMON, LEGACY, TABLE, NOTIFY = 0x400, 0x600, 0x800, 0x500


def _common(*writes: tuple[int, int, int]) -> list[Step]:
    return [Step("write", 0, COMMON + offset, size, value) for offset, size, value in writes]


def _pci_queue(tape: Dice, index: int) -> list[Step]:
    ready = tape.byte() > 20
    return _common(
        *((0x16, 2, index), (0x18, 2, tape.some((8, 256, tape.number(2)))), (0x1A, 2, tape.byte() % 5)),
        *((0x20, 4, 0x1000), (0x24, 4, tape.byte() % 2), (0x28, 4, 0x2000), (0x30, 4, 0x3000)),
        (0x1C, 2, int(ready)),
    )


def virtio_pci_program(tape: Dice) -> list[Step]:
    """A driver of the common structure, one of the legacy interface, and the table of vectors."""
    v = tape.byte()
    match tape.byte() % 9:
        case 0:
            status = _common((0x14, 1, 0), (0x14, 1, 3), (0x08, 4, 1), (0x0C, 4, int(v < 240)), (0x08, 4, 0))
            features = (v & 3) << 28 | (v & 4) << 13
            start = [*status, *_common((0x0C, 4, features), (0x14, 1, 11))]
            return [*start, *_pci_queue(tape, 0), *_pci_queue(tape, 1), *_common((0x14, 1, 15))]
        case 1:
            return _pci_queue(tape, v % 3)
        case 2:
            legacy = ((0x12, 1, v % 16), (0x04, 4, tape.number(4)), (0x0E, 2, v % 3), (0x08, 4, v % 5))
            places = ((0x14, 2, v % 5), (0x16, 2, v % 5), (0x12, 1, tape.some((0, 7, 15))))
            return [Step("write", 0, LEGACY + at, size, value) for at, size, value in (*legacy, *places)]
        case 3 | 4:
            place, size = TABLE + 4 * (v % 14), tape.some((1, 4, 8))
            values = tape.some((0, 1, 0xFEE0_0000, tape.number(8)))
            return [Step("write", 0, place, size, values), Step("read", 0, place, size)]
        case 5:
            place = tape.some((COMMON, LEGACY, TABLE, 0xC00, 0x480, 0x100, 0)) + v % 64
            return [Step("read", 0, place, tape.some((1, 2, 4)))]
        case 6:
            return _common((v % 64, tape.some((1, 2, 4)), tape.number(4)))
        case 7:
            return [Step("receive", 0, data=bytes(v % 24))]
        case _:
            return [Step("write", 0, NOTIFY + 4 * (v % 3), 2, 0)]


_VERSION = b"RFB 003.008\n"
_FORMATS = (
    struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0),
    struct.pack(">BBBBHHHBBB3x", 16, 16, 1, 1, 31, 63, 31, 11, 5, 0),
    struct.pack(">BBBBHHHBBB3x", 8, 8, 0, 0, 7, 7, 3, 0, 3, 6),
)


def rfb_program(tape: Dice) -> list[Step]:
    """What a client sends, in pieces, and what the VMM has for it."""
    v = tape.byte()
    client = (
        _VERSION[:10] + tape.some((b"8", b"7", b"3", b"x")) + b"\n",
        b"\x01",
        b"\x00",
        bytes(4) + tape.some(_FORMATS),
        b"\x06\0\0\0\xff\xff\xff\xff",
        b"\x02\0\x03\xe8" + bytes(400),
        bytes(4) + tape.randbytes(16),
        b"\x02\0\0\x02" + (-223 if v & 1 else 5).to_bytes(4, "big", signed=True) + bytes(4),
        b"\x02\0" + tape.number(2).to_bytes(2, "big"),
        b"\x03" + bytes((v & 1,)) + bytes(8),
        b"\x04" + bytes((v & 1,)) + bytes(6),
        b"\x05" + bytes(5),
        b"\x06\0\0\0" + bytes(3) + bytes((v,)),
        tape.randbytes(v % 40),
    )
    size = struct.pack(">HH", 640, 480)
    match tape.byte() % 8:
        case 0:
            said = [b"N" + size, b"C" + _VERSION, b"C\x01", b"C\x01"]
        case 1:
            rect = struct.pack(">HHHH", 0, 0, v % 8, v % 5) + bytes(range(3 * (v % 8) * (v % 5)))
            chosen = b"C\0\0\0\0" + tape.some(_FORMATS) if tape.byte() & 1 else b"C"
            said = [chosen, b"U\0\x01", b"R" + rect[: len(rect) - (v > 240)], b"Z" + size]
        case 2:
            said = [b"N" + size]
        case _:
            said = [b"C" + tape.some(client) + tape.some(client) * (v & 2 > 0)]
    return [Step("receive", 0, data=data) for data in said]


# What gets a chip anywhere takes several writes in order, which chance would rarely find.
PROGRAMS: Final = {
    "uart_16550a": uart_program,
    "pit_8254": pit_program,
    "rtc_mc146818": rtc_program,
    "i8042": i8042_program,
    "shutdown_port": shutdown_program,
    "acpi_pm": pm_program,
    "power_off_ports": power_off_program,
    "hpet": hpet_program,
    "fw_cfg": fw_cfg_program,
    "vga_text": vga_program,
    "ide": ide_program,
    "vbe_dispi": vbe_program,
    "pci_host": pci_program,
    "boot_disk": boot_disk_program,
    "pc_testdev": testdev_program,
    "bios_report": bios_report_program,
    "reset_control": reset_control_program,
    **dict.fromkeys(("virtio_blk", "virtio_rng", "virtio_console", "virtio_net"), virtio_program),
    **dict.fromkeys((f"virtio_{kind}_pci" for kind in ("blk", "rng", "console", "net")), virtio_pci_program),
    "qcow2": qcow2_program,
    "E1000": e1000_program,
    "RfbServer": rfb_program,
}


def _rare(tape: Dice) -> Step:
    value, data = tape.byte(), bytes(tape.byte() for _ in range(tape.byte() % 4))
    match tape.byte() % 8:
        case 0:
            return Step("answer", 0, tape.byte() % 4, tape.byte() % 8, value % 8, data)
        case 1:
            return Step("run", 0, value % 2, data=data + b"text" * (value % 5))
        case 2:
            return Step("damaged input", 0, tape.byte(), value=value)
        case 3:
            return Step("near", 0, value=tape.some((0, 1, 200_000, 244_000, 245_000, tape.number(4))))
        case _:
            return Step("shape", 0, value=value)


def steps_from(model: str, tape: Dice) -> list[Step]:
    """The calls that the rest of `tape` stands for."""
    steps: list[Step] = []
    some = PROGRAMS.get(model)
    while not tape.ended:
        kind = tape.byte() % 16
        if kind < 5:
            steps.append(access(tape, "write"))
        elif kind < 8:
            steps.append(access(tape, "read"))
        elif kind == 8:
            steps.append(Step("advance", jump(tape)))
        elif kind == 9:
            steps.append(Step("deadline", 0))
        elif kind == 10:
            count = tape.byte()
            steps.append(Step("receive", jump(tape), data=bytes(tape.byte() for _ in range(count % 24))))
        elif kind == 11:
            if tape.byte() < 64:  # rarely: it forgets what was reached
                steps.append(Step("reset", jump(tape)))
        elif kind == 12:
            steps.append(_rare(tape))
        elif some is not None:
            steps += some(tape)
    return steps
