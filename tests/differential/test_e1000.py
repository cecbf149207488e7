"""An 82540EM against QEMU's: the same lines to both, the same answers, descriptors and interrupts.

Both are at 00:03.0, and have nobody at the other end of the wire. QEMU has no firmware here: the program
gives both the same places. Where they differ, DEPARTURES has a witness.
"""

from __future__ import annotations

import random
import struct
import sys
from typing import Final

import pytest

from tests.differential.e1000_server import MAC
from tests.differential.runner import RTC_BASE, Answer, ask, find_qemu, qemu_command

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        find_qemu() is None,
        reason="no QEMU with -accel qtest: install qemu-system-xen, or name one in KVMBOX_QEMU",
    ),
]

KVMBOX: Final = (
    *(sys.executable, "-m", "tests.differential.e1000_server"),
    *("qtest", "--rtc-base", RTC_BASE, "--sandbox", "none"),
)
DEVICE: Final = ("-device", f"e1000,addr=3,mac={MAC}")

BASE: Final = 0xE100_0000
RING, BUFFERS, ENTRIES = 0x10_0000, 0x20_0000, 8
CTRL, STATUS, EECD, EERD, MDIC = 0x00, 0x08, 0x10, 0x14, 0x20
ICR, ITR, ICS, IMS, IMC, RCTL, TCTL = 0xC0, 0xC4, 0xC8, 0xD0, 0xD8, 0x100, 0x400
TDBAL, TDLEN, TDH, TDT = 0x3800, 0x3808, 0x3810, 0x3818
KEPT: Final = (0x38, 0xE00, 0x2820, 0x282C, 0x382C, 0x5400, 0x5478, 0x5200, 0x53FC, 0x5600, 0x57FC)
"""Registers that just keep what is written, as far as it has room."""
RINGS: Final = (0x2800, 0x2804, 0x2808, 0x2810, 0x2818, TDBAL, 0x3804, TDLEN, TDH)
COUNTERS: Final = (0x4080, 0x40D4, 0x4090, 0x4094, 0x40C8, 0x40CC, *range(0x40D8, 0x40F0, 4))


WAIT: Final = "clock_step 100000000"
"""QEMU holds an interrupt back that follows another one too soon."""


def select(function: int, register: int) -> str:
    return f"outl 0xcf8 {1 << 31 | function << 8 | register:#x}"


def write(register: int, value: int) -> str:
    return f"writel {BASE + register:#x} {value & 0xFFFF_FFFF:#x}"


def read(register: int) -> str:
    return f"readl {BASE + register:#x}"


def start() -> list[str]:
    """Places, and INTA# of 00:03.0 to line 11."""
    lines = ["irq_intercept_in ioapic"]
    for function, register, value in (
        (0x18, 0x04, 0),  # what kvmbox's firmware has done is taken back
        (0x18, 0x10, BASE),
        (0x18, 0x14, 0xC001),
        (0x18, 0x04, 7),
        (0x08, 0x60, 0x0B0B_0A0A),
    ):
        lines += [select(function, register), f"outl 0xcfc {value:#x}"]
    return lines


def compare(lines: list[str], masks: dict[int, int] | None = None) -> None:
    """`masks` are the bits that count, by register that is read."""
    ours, theirs = ask(KVMBOX, lines), ask([*qemu_command(), *DEVICE], lines)
    for number, (line, our, their) in enumerate(zip(lines, ours, theirs, strict=True)):
        words = line.split()
        mask = (masks or {}).get(int(words[1], 16) - BASE, -1) if words[0] == "readl" else -1
        assert said(our, mask) == said(their, mask), (number, lines[max(0, number - 4) : number + 1])


def said(answer: Answer, mask: int) -> object:
    if mask == -1:
        return answer
    return answer.irqs, int(answer.text.split()[1], 16) & mask


def test_identity_and_base_addresses_are_those_of_qemu() -> None:
    lines = start()
    for register in (0x00, 0x08, 0x2C):
        lines += [select(0x18, register), "inl 0xcfc"]
    for register in (0x10, 0x14, 0x18, 0x1C, 0x20, 0x24):
        lines += [select(0x18, register), "outl 0xcfc 0xffffffff", "inl 0xcfc"]
    compare(lines)


def test_registers_begin_as_those_of_qemu() -> None:
    registers = (*KEPT, *RINGS, *COUNTERS, CTRL, STATUS, ICR, IMS, RCTL, TCTL, 0x1000, 0x5404)
    compare([*start(), *(read(register) for register in registers)])


@pytest.mark.parametrize("seed", range(4))
def test_registers_keep_and_interrupt_as_those_of_qemu(seed: int) -> None:
    dice = random.Random(seed)
    lines = start()
    while len(lines) < 1200:
        value = dice.choice((0, 0xFFFF_FFFF, dice.getrandbits(32), 1 << dice.randrange(32)))
        match dice.randrange(4):
            case 0:
                register = dice.choice((*KEPT, *RINGS))
                lines += [write(register, value), read(register)]
            case 1:
                lines += [
                    write(dice.choice((ICS, IMS, IMC)), value & 0x1_FFFF),
                    read(dice.choice((ICS, IMS))),
                ]
            case 2:
                lines += [write(ICR, value)] if dice.randrange(2) else [read(ICR)]
            case _:
                lines += [read(dice.choice((STATUS, ICR, IMS, *KEPT)))]
        lines.append(WAIT)
    compare(lines)


@pytest.mark.parametrize("seed", range(4))
def test_descriptors_are_sent_as_by_qemu(seed: int) -> None:
    """Legacy, context and data descriptors, some of a frame each, some of several."""
    dice = random.Random(seed)
    lines = [*start(), write(TDBAL, RING), write(TDLEN, 16 * ENTRIES), write(TCTL, 2)]
    lines += [WAIT, write(IMS, 3), WAIT]
    tail, ends = 0, True
    for _ in range(60):
        for _ in range(dice.randrange(1, ENTRIES - 1)):
            size = dice.choice((60, 61, 124, 600, 1200))
            kind = dice.choice((0, 0, 1 << 29 | 1 << 20))
            command = dice.choice((0x01, 0x09, 0x0B)) << 24
            half = size | kind | command
            if ends and dice.randrange(6) == 0:
                half = dice.choice((0x20, 0x28)) << 24
            address = BUFFERS + 0x1000 * tail
            data = struct.pack("<QII", address, half, 0).hex()
            lines.append(f"write {RING + 16 * tail:#x} 16 0x{data}")
            tail = (tail + 1) % ENTRIES
        lines += [write(TDT, tail), WAIT, read(TDH), read(TDT), f"read {RING:#x} {16 * ENTRIES}"]
        lines += [read(ICS), read(ICR), *(read(register) for register in COUNTERS)]
    compare(lines)


ADDRESSES: Final = {
    "own": bytes.fromhex(MAC.replace(":", "")),
    "other": bytes.fromhex("026b76000002"),
    "everybody": b"\xff" * 6,
    "group": bytes.fromhex("01005e0000fb"),
}
LOOPBACK: Final = write(MDIC, 1 << 26 | 1 << 21 | 0x4140)
RECEIVE: Final = 0x30_0000
SETTLED: Final = "clock_step 2000000000"
"""QEMU receives nothing for a second after RCTL was written."""
RECEIVED: Final = (0x4074, 0x4078, 0x407C, 0x4088, 0x408C, 0x40A0, 0x40C0, 0x40C4, 0x40D0)
"""Not PRC64 to PRC1522: QEMU counts a frame there without the checksum that was taken away."""


@pytest.mark.parametrize("seed", range(6))
def test_frames_are_received_as_by_qemu(seed: int) -> None:
    """In loopback: filters, tags put in and taken out, one buffer and several, short frames."""
    dice = random.Random(seed)
    size_bits, size = dice.choice(((0, 2048), (2 << 16, 512), (3 << 16, 256)))
    control = 2 | size_bits | dice.choice((0, 1 << 26)) | dice.choice((0, 1 << 18))
    control |= dice.choice((0, 1 << 3)) | dice.choice((0, 1 << 15, 1 << 15 | 1 << 4))
    entries = 256
    lines = [*start(), LOOPBACK, write(CTRL, dice.choice((0, 1 << 30)))]
    lines += [write(0x5200 + 4 * 0x7D, dice.choice((0, 1 << 16))), write(0x5600 + 4 * 9, 1 << 3)]
    for ring, base in ((0x2800, RECEIVE), (TDBAL, RING)):
        lines += [write(ring, base), write(ring + 8, 16 * entries)]
    lines += [given(number) for number in range(entries)]
    lines += [
        write(0x2818, entries - 1),
        write(RCTL, control),
        write(TCTL, 2),
        SETTLED,
        write(IMS, 0x93),
        WAIT,
    ]
    tail = 0
    for _ in range(20):
        for _ in range(dice.randrange(1, 4)):
            length = dice.choice((20, 60, 61, 255, 256, 300, 1000, 1514))
            behind = dice.choice((bytes.fromhex("81006123"), bytes.fromhex("81000004"), b"\x08\x00"))
            frame = dice.choice([*ADDRESSES.values()]) + bytes(6) + behind + dice.randbytes(length)
            half = length | 0x09000000 | dice.choice((0, 1 << 30 | dice.choice((0x123, 4)) << 48))
            address = BUFFERS + 0x1000 * tail
            lines.append(f"write {address:#x} {length} 0x{frame[:length].hex()}")
            lines.append(f"write {RING + 16 * tail:#x} 16 0x{struct.pack('<QQ', address, half).hex()}")
            tail = (tail + 1) % entries
        lines += [write(TDT, tail), WAIT, read(0x2810), read(ICS), read(ICR), WAIT]
    lines += [f"read {RECEIVE:#x} {16 * entries}", *(read(register) for register in RECEIVED)]
    lines += [f"read {place_of(number):#x} {size}" for number in range(entries)]
    compare(lines)


@pytest.mark.parametrize("seed", range(6))
def test_jumbo_frames_are_received_as_by_qemu(seed: int) -> None:
    """In loopback: buffers of several sizes, LPE or not, frames up to the longest one that is sent."""
    dice = random.Random(seed)
    size_bits, size = dice.choice(
        ((0, 2048), (1 << 16, 1024), (3 << 16, 256), (1 << 25 | 2 << 16, 8192), (1 << 25 | 1 << 16, 16384))
    )
    control = 2 | 3 << 3 | size_bits | dice.choice((0, 1 << 26)) | (0 if seed == 5 else 1 << 5)
    entries, longest = 128, 16380 if control & 1 << 5 else 1518
    lines = [*start(), LOOPBACK]
    for ring, base in ((0x2800, RECEIVE), (TDBAL, RING)):
        lines += [write(ring, base), write(ring + 8, 16 * entries)]
    lines += [write(0x2818, 0), write(RCTL, control), write(TCTL, 2), SETTLED, write(IMS, 0x93), WAIT]
    tail = received = 0
    for length in (60, 1514, 1518, 1519, 4096, 9014, 16288, dice.randrange(1519, 16288)):
        for _ in range(-(-(length + 4) // size) + (not received) if length <= longest else 0):
            lines.append(given(received, 0x4000))
            received = (received + 1) % entries
        lines.append(write(0x2818, received))
        whole, place = dice.randbytes(length), 0
        while place < length:
            part = min(length - place, dice.choice((1500, 4096, 16288)))
            half = part | (0x09000000 if place + part == length else 0x08000000)
            address = BUFFERS + place
            lines.append(f"write {address:#x} {part} 0x{whole[place : place + part].hex()}")
            lines.append(f"write {RING + 16 * tail:#x} 16 0x{struct.pack('<QQ', address, half).hex()}")
            tail, place = (tail + 1) % entries, place + part
        lines += [write(TDT, tail), WAIT, read(0x2810), read(ICS), read(ICR), WAIT]
        lines += [read(register) for register in (0x40AC, *RECEIVED)]
    lines += [f"read {RECEIVE:#x} {16 * entries}"]
    lines += [f"read {place_of(number, 0x4000):#x} {size}" for number in range(entries)]
    compare(lines)


@pytest.mark.parametrize("seed", range(4))
def test_interrupts_are_held_back_as_by_qemu(seed: int) -> None:
    """From 500 on, which is the least for QEMU: causes, masks and time in any order."""
    dice = random.Random(seed)
    interval = dice.choice((500, 651, 5580, 0xFFFF))
    steps = (1, interval // 3, interval - 1, interval, 2 * interval)
    lines = [*start(), write(ITR, interval)]
    for _ in range(400):
        lines += dice.choice(
            (
                [write(dice.choice((ICS, IMS, IMC)), 1 << dice.randrange(8))],
                [read(ICR)],
                [f"clock_step {256 * dice.choice(steps)}"],
            )
        )
    compare(lines)


def place_of(number: int, apart: int = 0x1000) -> int:
    """Where a buffer to receive to is."""
    return RECEIVE + apart * (number + 1)


def given(number: int, apart: int = 0x1000) -> str:
    """The descriptor that gives it to the device."""
    return f"write {RECEIVE + 16 * number:#x} 16 0x{struct.pack('<QQ', place_of(number, apart), 0).hex()}"


def test_tail_beyond_the_ring_receives_as_in_qemu() -> None:
    lines = [*start(), LOOPBACK]
    for ring, base in ((0x2800, RECEIVE), (TDBAL, RING)):
        lines += [write(ring, base), write(ring + 8, 128)]
    for number in range(ENTRIES):
        lines.append(given(number))
        half = struct.pack("<QQ", BUFFERS, 0x0900003C)
        lines.append(f"write {RING + 16 * number:#x} 16 0x{half.hex()}")
    lines += [write(0x2818, ENTRIES), write(RCTL, 2 | 3 << 3), write(TCTL, 2), SETTLED]
    for number in range(1, 3 * ENTRIES):
        lines += [write(TDT, number % ENTRIES), WAIT, read(0x2810), f"read {RECEIVE:#x} 128", read(ICR)]
    compare(lines)


def test_eeprom_and_phy_are_those_of_qemu() -> None:
    lines = start()
    for address in (0, 1, 2, 0x0D, 0x0E):
        lines += [write(EERD, address << 8 | 1), read(EERD)]
    for register in (0, 1, 2, 3, 4, 9, 10, 16, 17, 20):
        lines += [write(MDIC, 2 << 26 | 1 << 21 | register << 16), read(MDIC)]
    lines += [write(MDIC, 1 << 26 | 1 << 21 | 16 << 16 | 0x1234), write(MDIC, 2 << 26 | 1 << 21 | 16 << 16)]
    compare([*lines, read(MDIC)], {MDIC: ~0x20})  # see "agreed" below
    lines = start()
    for wrong in (2 << 26 | 2 << 21 | 1 << 16, 2 << 26 | 1 << 21 | 31 << 16):
        lines += [write(MDIC, wrong), read(MDIC)]
    compare(lines, {MDIC: 5 << 28})


def test_wires_of_the_eeprom_are_those_of_qemu() -> None:
    lines = [*start(), write(EECD, 1 << 6), read(EECD)]
    for address in (0, 2, 0x0E):
        lines += [write(EECD, 1 << 6 | 2)]
        for place in reversed(range(9)):
            bit = 1 << 6 | 2 | (0b110 << 6 | address) >> place << 2 & 4
            lines += [write(EECD, bit), write(EECD, bit | 1), write(EECD, bit)]
        for _ in range(16):
            lines += [write(EECD, 1 << 6 | 3), read(EECD), write(EECD, 1 << 6 | 2)]
        lines += [write(EECD, 0)]
    compare(lines)


DEPARTURES: Final = {
    # What the guest does, what kvmbox says for the last line, and QEMU.
    "reset": ([write(0x38, 5), write(CTRL, 1 << 26), read(0x38)], 0x8100, 5),
    "ports": (["outl 0xc000 0x5400", "inl 0xc004"], 0x766B02, 0),
    "agreed": ([write(MDIC, 2 << 26 | 1 << 21 | 1 << 16), read(MDIC)], 0x1821_796D, 0x1821_794D),
    "link goes down while it is agreed on": (
        [write(MDIC, 1 << 26 | 1 << 21 | 0x1340), read(STATUS)],
        0x8008_0783,
        0x8008_0781,
    ),
    "longer frame than any": (
        [
            *(write(TDBAL, RING), write(TDLEN, 128), write(TCTL, 2)),
            f"write {RING:#x} 32 0x{struct.pack('<QQQQ', BUFFERS, 16288, BUFFERS, 0x09000001).hex()}",
            *(write(TDT, 2), read(0x4080)),
        ],
        0,
        1,
    ),
    "narrow access": ([f"readb {BASE + 0x5401:#x}"], 0x6B, 0x02),
    "narrow write": ([f"writeb {BASE + 0x38:#x} 5", read(0x38)], 0x8100, 5),
    "interrupts are held back without ITR": (
        [write(IMS, 3), write(ICS, 1), read(ICR), write(ICS, 2)],
        "IRQ raise 11",
        None,
    ),
    "tail beyond the ring": (
        [write(TDBAL, RING), write(TDLEN, 128), write(TCTL, 2), write(TDT, 77), read(ICS)],
        0x2,
        0x3,
    ),
}


@pytest.mark.parametrize("name", DEPARTURES)
def test_departure_is_still_one(name: str) -> None:
    lines, ours, theirs = DEPARTURES[name]
    ring = [
        f"write {RING + 16 * place:#x} 16 0x{struct.pack('<QQ', BUFFERS, 0x0900003C).hex()}"
        for place in range(8)
    ]

    for command, wanted in ((KVMBOX, ours), ([*qemu_command(), *DEVICE], theirs)):
        last = ask(command, [*start(), *ring, *lines])[-1]
        if isinstance(wanted, int):
            assert int(last.text.split()[1], 16) == wanted
        else:
            assert last.irqs == (() if wanted is None else (wanted,))
