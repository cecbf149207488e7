"""Every model of the catalogue, alone, against its contract: `kvmbox/devices/model.py`.

No channel and no server stands between (tests/property/test_server_models.py has those): offsets and sizes
that the bus never passes on, snapshots that no RESTORE would carry, and the state itself are in reach here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox import board, board_extras, layout
from kvmbox.board import (
    SERIAL_PORTS,
    AddressRange,
    BiosReport,
    BoardOptions,
    BootDrive,
    Content,
    DeviceSpec,
    Input,
    Irq,
    Medium,
    Memory,
    Output,
    Queues,
    ReplacingIrq,
    Resource,
    StopClean,
    StopPanic,
    StopValue,
)
from kvmbox.board_e1000 import e1000_net
from kvmbox.board_extras import DescriptorRings, disk_map, whole_board
from kvmbox.board_pci import Intx, with_pci
from kvmbox.board_virtio_pci import on_pci
from kvmbox.devices.catalog import MODELS, build_model
from kvmbox.devices.e1000 import RECEIVED, is_context
from kvmbox.devices.media import (
    MOST_HEADER,
    Aperture,
    Chain,
    ChainRead,
    ChainServe,
    ChainTransfer,
    ChainUsed,
    ChainWrite,
    ConfigChanged,
    Connect,
    Flush,
    FrameBuffer,
    Queue,
    Walk,
    Window,
)
from kvmbox.devices.model import (
    BAD_ADDRESS,
    BEYOND_END,
    DONE,
    FAILED,
    MOVED,
    NO_RISE,
    NO_SPACE,
    WAKE_BY_RTC,
    ContentRead,
    DeviceModel,
    Effect,
    HostOutput,
    InputRoom,
    IrqLine,
    LateWrites,
    MemoryRead,
    MemoryWrite,
    Reset,
    RisesAt,
    SnapshotError,
    Stop,
    Suspend,
    TakeLine,
    Transfer,
)
from kvmbox.devices.qcow2 import DATA, MAP, MAP_FRAME, OPEN, OPEN_FRAME
from kvmbox.firmware.fw_cfg import FwCfgItem
from kvmbox.remote.queue_notes import notified
from kvmbox.wire.protocol import MAX_STEADY
from tests.support.ide_host import cd, disk
from tests.support.qcow2_images import qcow2
from tests.support.work import footprint

SECOND: Final = 1_000_000_000
LAST_TIME: Final = 1 << 62
"""146 years of guest time: what the VMM stamps at most."""

NO_DEADLINE: Final = (1 << 64) - 1
"""What 64 bits of a reply say for None; a deadline has to fit below."""

MOST_EFFECTS: Final = 64
"""Of one call: a frame takes 255 of all models together."""

MOST_STATE: Final = 1024
"""Bytes of a snapshot: CMOS RAM, FIFOs and registers fit in; what a guest can fill beyond is a leak."""

OWN_MEMORY: Final = {
    "pc_testdev": layout.TESTDEV_MEMORY_SIZE,
    "virtio_blk": 64 * 28,
    "virtio_console": 64 * 20,
    "virtio_blk_pci": 64 * 28,
    "virtio_console_pci": 64 * 20,
    "pci_host": 5 * 256,
    "E1000": 5 * 4096,
}
"""By model: how many bytes of memory are a part of the device."""

MOST_FOLLOW_UPS: Final = 16
"""How many questions of a model are answered within one access."""

REQUEST_BLOCKS: Final = (
    (0x0020_000A, 5020, 0),
    (0x0023_000A, 70, 0x100),
    (0x0000_0008, 0, 0),
    (0x0024_000C, 65, 0),
    (2, 3, 0x100),
    (4, 1000, 0),
    (0x10, 1, 0),
    (0x10, 0, 0),
    (0, 9, 9),
    (2, 0xFFFF_FFFF, 0),
    (0x0019_000A, 1 << 26, 0x20),
    (0xFFFF_FFFF, 7, 1 << 63),
    (0x8003_000A, 40, 0x1001),
    (6, 8, (1 << 64) - 4),
)
"""What a device that reads guest memory finds there, at multiples of 16: control, length and address."""


def guest_memory(address: int, size: int) -> bytes | None:
    """The guest's memory: the same at any time. What is written to it is gone."""
    blocks = b"".join([struct.pack(">IIQ", *block) for block in REQUEST_BLOCKS])
    return blocks[address : address + size] if address + size <= len(blocks) else None


IDE: Final = DeviceSpec(
    *("ide0", "ide", "ide"),
    ports=(AddressRange(0x1F0, 8), AddressRange(0x3F6, 1, offset=8)),
    parameters={"master": disk(5000, b"1"), "slave": cd(70, b"2")},
    grants=(Irq(14), Medium("disk", 5000 * 512, writable=True, window=0), Medium("cd", 70 * 2048, window=0)),
    natural_sizes=frozenset({2, 4}),
)


def variants() -> dict[str, DeviceSpec]:
    """Each model as the board has it, and with the parameters that make it behave in another way."""
    found: dict[str, DeviceSpec] = {}
    for pace in (False, True):
        options = BoardOptions(
            *(SERIAL_PORTS, 1_700_000_000, layout.MIN_MEMORY),
            uart_pace=pace,
            testdev=True,
            has_bios=True,
            boot_drives=(BootDrive("disk", 64),),
            fw_cfg=(FwCfgItem(bytes(range(1, 252)) * 20, "opt/large"),),
        )
        for device in whole_board(options):
            name = device.model + (" paced" if device.parameters.get("pace_transmit") else "")
            found.setdefault(name, device)
    found["ide"] = IDE
    disk = Medium("disk", 64 * layout.SECTOR_SIZE, writable=True)
    virtio = [board_extras.virtio_blk(0, disk, serial=b"1"), board_extras.virtio_rng()]
    virtio += [board_extras.virtio_console(), board_extras.virtio_net(0, bytes(6))]
    found["qcow2"] = disk_map("disk")
    functions = [on_pci(device) for device in virtio]
    functions.append(e1000_net(0, bytes(6)))
    found |= {device.model: device for device in with_pci(functions)}
    return found | {device.model: device for device in board_extras.place_virtio(virtio)}


VARIANTS = variants()
each_model = pytest.mark.parametrize("name", VARIANTS)


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


class Tape:
    """Bytes from Hypothesis, read as calls. Its own lists of calls come out short and much alike: of a
    thousand steps not one reached port 0x92. Bytes are as even as they come, and still shrink.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def ended(self) -> bool:
        return self._position >= len(self._data)

    def byte(self) -> int:
        """The next byte; zero behind the end."""
        self._position += 1
        return self._data[self._position - 1] if self._position <= len(self._data) else 0

    def number(self, size: int) -> int:
        return int.from_bytes(bytes(self.byte() for _ in range(size)), "little")

    def jump(self) -> int:
        """How far time moves: not at all, by some ns, by up to two seconds, back, or by years."""
        kind = self.byte()
        if kind < 112:
            return 0
        if kind < 160:
            return self.number(2)
        if kind < 224:
            return self.number(4) % (2 * SECOND)
        return -self.number(4) if kind < 240 else HUGE_JUMPS[kind % len(HUGE_JUMPS)]

    def access(self, kind: str) -> Step:
        offset = self.byte()
        offset = offset % 8 if offset < 224 else FAR_OFFSETS[offset % len(FAR_OFFSETS)]
        size = (1, 1, 1, 1, 1, 2, 4, 8)[self.byte() % 8]
        how = self.byte()
        if how < 128:
            value = self.byte()
        elif how < 224:
            value = TELLING[how % len(TELLING)]
        else:
            value = self.number(8)
        return Step(kind, self.jump(), offset, size, value)


def program(*writes: tuple[int, int]) -> list[Step]:
    """Writes that belong together: (offset, value) each."""
    return [Step("write", 0, offset, 1, value) for offset, value in writes]


def uart_program(tape: Tape) -> list[Step]:
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


def pit_program(tape: Tape) -> list[Step]:
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


def rtc_program(tape: Tape) -> list[Step]:
    v, w = tape.byte(), tape.byte()
    match tape.byte() % 4:
        case 0:
            return program((0, v % 16), (1, w))
        case 1:
            return program((0, 0x0A), (1, 0x20 | v & 0x0F), (0, 0x0B), (1, w & 0x7F))
        case 2:
            return program((0, 0x0B), (1, v | 0x80), (0, w % 10), (1, tape.byte()), (0, 0x0B), (1, v & 0x7F))
        case _:
            return [*program((0, 0x0C)), Step("read", 0, 1)]


def i8042_program(tape: Tape) -> list[Step]:
    commands = (0x20, 0x60, 0xA8, 0xAA, 0xC0, 0xD0, 0xD1, 0xD2, 0xD3, 0xD4, 0xE0)
    v, w = tape.byte(), tape.byte()
    match tape.byte() % 4:
        case 0:
            return program((1, commands[v % len(commands)]), (0, w))
        case 1:  # the mouse, which has its commands there, too
            event = Step("receive", 0, data=bytes((0, v, w, 0, v, 0, w)) * (1 + v % 3))
            return [*program((1, 0xD4), (0, (0xF4, 0xE6 + w % 26)[v % 2]), (1, (0xA7, 0xA8)[w % 2])), event]
        case 2:  # the keyboard, which has most of its commands at the end
            return program((0, 0xED + v % 19), (0, w % 8))
        case _:
            keys = Step("receive", 0, data=b"\x1f\x9f~S" * (w % 6))
            return [*program((1, (0xAD, 0xAE, 0xAE)[v % 3])), keys]


def shutdown_program(tape: Tape) -> list[Step]:
    return program(*((0, value) for value in b"Shutdown"[: 1 + tape.byte() % 8]))


def pm_program(tape: Tape) -> list[Step]:
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


def power_off_program(tape: Tape) -> list[Step]:
    v = tape.byte()
    return [Step("write", 0, (0, 4)[v % 2], (1, 2, 4, 8)[v // 2 % 4], (0x2000, 0x3400)[v // 8 % 2])]


def hpet_program(tape: Tape) -> list[Step]:
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


def fw_cfg_program(tape: Tape) -> list[Step]:
    keys = (0x00, 0x03, 0x19, 0x20, 0x23, 0x24, 0x8003, 0x4000, 0xFFFF)
    select = Step("write", 0, 0, 2, keys[tape.byte() % len(keys)])
    if tape.byte() & 1:
        return [select, *[Step("read", 0, 1)] * (tape.byte() % 150)]
    block = tape.byte() % (len(REQUEST_BLOCKS) + 2) * 16
    return [select, Step("write", 0, 8, 4, int.from_bytes(block.to_bytes(4, "big"), "little"))]


def vga_program(tape: Tape) -> list[Step]:
    v, w = tape.byte(), tape.byte()
    match tape.byte() % 7:
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


ANSWERS: Final = (DONE, DONE, DONE, MOVED, MOVED, MOVED, FAILED, BEYOND_END, NO_SPACE)


def ide_program(tape: Tape) -> list[Step]:
    v, w = tape.byte(), tape.byte()
    answers = [Step("complete", 0, v & 0xF8, ANSWERS[tape.byte() % len(ANSWERS)], w) for _ in range(v % 8)]
    match tape.byte() % 8:
        case 0:  # an ATA command that is one, at some address near the beginning or the end
            codes = (0x20, 0x24, 0x29, 0x30, 0x34, 0x39, 0x40, 0x70, 0x91, 0xC4, 0xC5, 0xC6, 0xE7, 0xEC)
            place = program((2, w % 20), (3, v), (4, (0, 19)[w & 1]), (5, 0), (6, 0x40 | w & 0x30))
            return [*place, *program((7, codes[tape.byte() % len(codes)])), *answers]
        case 1 | 2:  # a packet
            packets = (
                0x00,
                0x03,
                0x12,
                0x1A,
                0x1B,
                0x1E,
                0x25,
                0x28,
                0x43,
                0x46,
                0x4A,
                0x5A,
                0xA8,
                0xBD,
                0xBE,
            )
            command = bytes((packets[v % len(packets)], w & 3, 0, 0, 0, w % 80, 0, 0, tape.byte() % 9, 0x10))
            words = struct.unpack("<6H", command.ljust(12, b"\0"))
            start = program((6, 0x10), (1, 0), (4, tape.byte()), (5, tape.byte() % 16), (7, 0xA0))
            return [*start, *[Step("write", 0, 0, 2, word) for word in words], *answers]
        case 3:
            return [Step("read", 0, 0, (2, 2, 4)[w % 3])] * (v + 1)
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


def virtio_program(tape: Tape) -> list[Step]:
    v, w = tape.byte(), tape.byte()
    match tape.byte() % 6:
        case 0:  # as a driver begins, more or less
            return [
                *(Step("write", 0, 0x70, 4, value) for value in (0, 3)),
                *(Step("write", 0, 0x24, 4, 1), Step("write", 0, 0x20, 4, 1 if v < 240 else v)),
                *(Step("write", 0, 0x24, 4, 0), Step("write", 0, 0x20, 4, (v & 3) << 28)),
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
            return [Step("receive", 0, data=bytes(v % 24)), Step("write", 0, 0x50, 4, 0)]
        case _:
            return [Step("write", 0, 0x50, 4, v % 3)]


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


def e1000_program(tape: Tape) -> list[Step]:
    v, w, index = tape.byte(), tape.byte(), tape.byte() % 2
    ring = (0x2800, 0x3800)[index]
    match tape.byte() % 6:
        case 0:  # as a driver begins, more or less
            areas = [
                Step("write", 0, ring + place, 4, value) for place, value in ((0, v << 4), (8, 128 + w * 64))
            ]
            return [*areas, Step("write", 0, (0x100, 0x400)[index], 4, 2 | w << 3 | v << 16)]
        case 1 | 2:
            return [Step("write", 0, ring + 0x18, 4, v % 16)]
        case 3:
            offers = [struct.pack("<H6s", 10 * tape.byte(), bytes((v & 1,)) * 6) for _ in range(w % 17)]
            return [Step("receive", 0, data=b"".join(offers))]
        case 4:
            register = (0x14, 0x20, 0x10, 0x10, 0xC8, 0xD0, 0xD8)[v % 7]
            return [
                Step("write", 0, register, 4, tape.number(4)),
                Step("read", 0, (register, 0xC0)[w & 1], 4),
            ]
        case _:
            registers = (0x0, 0x100, 0x400, ring + 0x10, 0x5400 + v // 8 * 4, 0x20000, 0x20004)
            return [Step("write", 0, registers[v % 7], (4, 8)[w & 1], tape.number(4) & ~(w << 20))]


IMAGE: Final = qcow2({0: b"a", 1: b"", 2: b"b", 70: b"c"}, size=100 * 512, entries={3: 1 << 62, 4: 1 << 40})


def qcow2_program(tape: Tape) -> list[Step]:
    """Questions, and what may be the bytes that they want: those of an image, or of another place in it."""
    place = tape.byte() % 8 * 512
    bytes_of = [
        bytes((DATA,)) + IMAGE[at : at + size] for at, size in ((0, 112), (512, 8), (1024, 512), (place, 8))
    ]
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
    "virtio_blk": virtio_program,
    "virtio_rng": virtio_program,
    "virtio_console": virtio_program,
    "virtio_net": virtio_program,
    "qcow2": qcow2_program,
    "E1000": e1000_program,
}


def steps_from(name: str, data: bytes) -> list[Step]:
    """The calls that `data` stands for, for the model of this variant."""
    tape = Tape(data)
    steps: list[Step] = []
    some = PROGRAMS.get(VARIANTS[name].model)
    while not tape.ended:
        kind = tape.byte() % 16
        if kind < 5:
            steps.append(tape.access("write"))
        elif kind < 8:
            steps.append(tape.access("read"))
        elif kind == 8:
            steps.append(Step("advance", tape.jump()))
        elif kind == 9:
            steps.append(Step("deadline", 0))
        elif kind == 10:
            count = tape.byte()
            steps.append(Step("receive", tape.jump(), data=bytes(tape.byte() for _ in range(count % 24))))
        elif kind == 11:
            if tape.byte() < 64:  # rarely: it forgets what was reached
                steps.append(Step("reset", tape.jump()))
        elif some is not None:
            steps += some(tape)
    return steps


def steps_for(name: str, *, most: int = 300) -> st.SearchStrategy[list[Step]]:
    """Calls for the model of this variant, from `most` bytes at most: some six bytes make a step."""
    return st.binary(min_size=most // 3, max_size=most).map(lambda data: steps_from(name, data))


QUESTIONS: Final = (MemoryRead, ContentRead, Transfer, ChainRead, ChainTransfer)


class VirtioGuest:
    """What a guest has in its queues, and what a device may do with it. It is as even as a counter."""

    def __init__(self) -> None:
        self.last = 0
        self.chains: dict[int, Chain] = {}
        self.wanted: dict[int, int] = {}
        """The queues whose chains the device wants, and how many at a time."""
        self.is_strict = True
        """Whether the device can know of no other chains."""

    def copy(self) -> VirtioGuest:
        other = VirtioGuest()
        other.last, other.chains, other.is_strict = self.last, dict(self.chains), self.is_strict
        other.wanted = dict(self.wanted)
        return other

    def walked(self, index: int, count: int) -> tuple[list[Chain], int]:
        """The chains of a walk, and its status."""
        assert 0 < count <= 64
        if self.last % 41 == 40:
            self.last += 1
            del self.wanted[index]
            return [], BAD_ADDRESS
        found = []
        for _ in range(min(count, 1 + self.last % 5)):
            self.last += 1
            kind = (0, 1, 4, 8, 9, 0, 1)[self.last % 7]
            readable = (16, 528, 0, 40, 20, 16 + 512 * 80)[self.last % 6]
            writable = (1, 513, 21, 0, 4, 1025)[self.last // 7 % 6]
            head = struct.pack("<IIQQQ", kind, 0, self.last % 70, 0, 0)[: min(readable, 32)]
            chain = self.chains[self.last] = Chain(self.last, readable, writable, head)
            found.append(chain)
        return found, DONE

    def notified(self, model: Any, now: int, index: int) -> None:
        """The guest notifies: what the VMM makes of it."""
        if index in self.wanted:
            model.chains(now, index, *self.walked(index, self.wanted[index]))

    def asked(self, effect: Effect) -> None:
        """What would break the protocol is asserted."""
        if not self.is_strict and getattr(effect, "handle", 0) not in self.chains:
            return
        match effect:
            case ChainRead(handle, skip, size):
                assert 0 < size <= 4064
                assert skip + size <= self.chains[handle].readable
            case ChainWrite(handle, skip, data):
                assert skip + len(data) <= self.chains[handle].writable
            case ChainTransfer(handle, resource, _, skip, size, to_guest):
                assert resource == 0
                assert 0 < size <= 1 << 20
                chain = self.chains[handle]
                assert skip + size <= (chain.writable if to_guest else chain.readable)
            case ChainServe(handle, resource, _, skip, size, to_guest, place, good, bad):
                assert resource == 0
                assert 0 < size <= 1 << 20
                chain = self.chains.pop(handle)
                assert skip + size <= (chain.writable if to_guest else chain.readable)
                assert place < chain.writable
                assert good < bad < 256
            case ChainUsed(handle, written):
                assert written <= self.chains.pop(handle).writable


class DescriptorGuest(VirtioGuest):
    """The same for rings of descriptors: one to receive to has no head, and one to send has what it says."""

    def walked(self, index: int, count: int) -> tuple[list[Chain], int]:
        assert 0 < count <= 64
        found = []
        for _ in range(min(count, self.last % 5)):
            self.last += 1
            size = (60, 14, 1514, 0, 9, 0xFFFF)[self.last % 6]
            half = (
                size | (0x0B, 0x00, 0x29, 0x2D, 0x01, 0x04, 0x20)[self.last % 7] << 24 | self.last % 2 << 20
            )
            is_none = self.last % 11 == 10
            if index == RECEIVED:
                chain = Chain(self.last, 0, 0 if is_none else (256, 2048)[self.last % 2], b"")
            elif is_context(half):
                chain = Chain(
                    self.last, 0, 0, struct.pack("<QQ", 0x0022_2214_0018_180E, half | 1 << 54 | 54 << 40)
                )
            else:
                chain = Chain(self.last, 0 if is_none else size, 0, struct.pack("<Q", half | 3 << 40))
            self.chains[self.last] = chain
            found.append(chain)
        self.last += not found
        return found, DONE

    def copy(self) -> DescriptorGuest:
        other = DescriptorGuest()
        other.last, other.chains, other.wanted = self.last, dict(self.chains), dict(self.wanted)
        return other

    def asked(self, effect: Effect) -> None:
        """See VirtioGuest. What goes back has the new half of a descriptor."""
        if isinstance(effect, ChainUsed):
            chain = self.chains.pop(effect.handle)
            assert chain.head or effect.written & 0xFFFF <= chain.writable
        elif not isinstance(effect, ChainTransfer) or effect.size:  # the last buffer of a frame may be empty
            super().asked(effect)


class Rig:
    """A model, its time, and the checks that hold after every call."""

    def __init__(self, device: DeviceSpec) -> None:
        self.device = device
        self.model: DeviceModel = build_model(device.model, dict(device.parameters))
        self.now = 0
        self.seen = 0
        """The largest time that the model has been told."""
        self.lines = dict.fromkeys(range(len(device.irqs) + len(device.granted(Intx))), 0)
        self.taken = dict.fromkeys(range(len(device.irqs)), 0)
        self.rises = 0
        self.announced: dict[int, int] = {}
        """When each pin will rise, as far as that was announced."""
        self.asked = 0
        """The tag of the last window or flush."""
        self.written = (0, 0, 0)
        """Offset, size and value of the last write."""
        self.trace: list[object] = []
        self.walks_at_once = bool(device.granted(DescriptorRings))
        self.guest = DescriptorGuest() if self.walks_at_once else VirtioGuest()

    def play(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.step(step)

    def step(self, step: Step) -> None:
        self.now = min(max(0, self.now + step.jump), LAST_TIME)
        mask = (1 << 8 * step.size) - 1
        written = 0
        match step.kind:
            case "read":
                value = self.model.read(self.now, step.offset, step.size)
                assert type(value) is int
                assert 0 <= value <= mask
                self.trace.append(value)
            case "write":
                written = step.size
                self.written = (step.offset, step.size, step.value & mask)
                index = notified(step.offset, step.size, step.value & mask)
                if self.device.granted(Queues) and index is not None and not self.walks_at_once:
                    self.guest.notified(self.model, self.now, index)
                else:
                    assert self.model.write(self.now, step.offset, step.size, step.value & mask) is None  # type: ignore[func-returns-value]  # that is the point
            case "advance":
                self.model.advance(self.now)
            case "deadline":
                deadline = self.model.next_deadline()
                if deadline is not None and deadline <= LAST_TIME:
                    self.now = max(self.now, deadline)
                self.model.advance(self.now)
            case "receive":
                accepted = self.model.receive(self.now, step.data)
                assert 0 <= accepted <= len(step.data)
                takes_input = bool(self.device.granted(Input)) or bool(self.device.granted(board.Suspend))
                catches_up = self.device.model == "rtc_mc146818" and len(step.data) == 8
                is_asked = self.device.model == "qcow2"
                assert accepted == 0 or takes_input or catches_up or is_asked
                self.trace.append(accepted)
            case "complete":
                model: Any = self.model
                model.complete(self.now, self.asked if step.offset else step.value, step.size)
            case "reset":
                self.guest.wanted.clear()
                self.model.reset(self.now)
            case _:
                raise AssertionError(step)
        self.seen = max(self.seen, self.now)
        effects = self.model.take_effects()
        self.check_announced(effects)
        self.check_effects(effects, is_write=step.kind == "write", written=written)
        effects += self.follow_up(effects)
        assert self.model.take_effects() == []
        deadline = self.model.next_deadline()
        assert deadline is None or (type(deadline) is int and self.seen < deadline < NO_DEADLINE)
        for at in self.announced.values():
            assert deadline is not None, "a rise that nobody would tell the model of"
            assert deadline <= at
        self.trace.append((deadline, effects))

    def check_announced(self, effects: list[Effect]) -> None:
        """A pin whose time has come rises before anything else, but for a fall right before it."""
        for pin in [pin for pin, at in self.announced.items() if at <= self.seen]:
            levels = [one.level for one in effects if isinstance(one, IrqLine) and one.pin == pin]
            assert levels[self.lines[pin] :][:1] == [1], "announced, and it does not rise"
            del self.announced[pin]

    def follow_up(self, effects: list[Effect]) -> list[Effect]:
        """Answer what the model asks for, and what it asks for then; returns the effects of that."""
        later: list[Effect] = []
        model: Any = self.model
        kinds: tuple[type[Effect], ...] = (*QUESTIONS, Flush) if self.device.granted(Queues) else QUESTIONS
        kinds = (Walk, ChainRead) if self.walks_at_once else kinds
        waiting = [effect for effect in effects if isinstance(effect, kinds)]
        # What a device with queues wants can wait.
        for _ in range(10 * MOST_FOLLOW_UPS if self.device.granted(Queues) else MOST_FOLLOW_UPS):
            if not waiting:
                break
            match waiting.pop(0):
                case MemoryRead(tag, ranges):
                    model.memory(self.now, tag, guest_memory(*ranges[0]))
                case ContentRead(tag, _, offset, size):
                    model.memory(self.now, tag, bytes((offset + index) & 0xFF for index in range(size)))
                case Transfer(tag, _, _, ranges, _):
                    model.complete(self.now, tag, DONE if ranges[0][0] < 0x1000 else BAD_ADDRESS)
                case Walk(index, count):
                    chains, status = self.guest.walked(index, count)
                    if chains:
                        model.chains(self.now, index, chains, status)
                case ChainRead(handle, _, size):
                    model.memory(self.now, handle, bytes(size))
                case ChainTransfer(handle, _, _, _, _, _) | Flush(handle, _):
                    model.complete(self.now, handle, DONE if handle % 9 else FAILED)
            more = self.model.take_effects()
            self.check_effects(more, is_write=False, written=0)
            waiting += [effect for effect in more if isinstance(effect, kinds)]
            later += more
        assert not waiting, "more than are answered within one access"
        return later

    def check_effects(self, effects: list[Effect], *, is_write: bool, written: int) -> None:
        """What a model may cause: what its board granted it, and not without end."""
        assert len(effects) <= MOST_EFFECTS
        for effect in effects:
            match effect:
                case IrqLine(pin, level, coalesced):
                    assert level == 1 - self.lines[pin], "a level that was there already"
                    self.lines[pin] = level
                    assert coalesced >= 0
                    assert coalesced == 0 or level == 1
                    self.rises += level * (1 + coalesced)
                case RisesAt(pin, at):
                    assert pin in self.lines
                    assert self.device.parameters["announce"]
                    assert at == NO_RISE or self.announced.get(pin) != at, "announced twice"
                    self.announced.pop(pin, None)
                    if at != NO_RISE:
                        assert self.seen < at < NO_RISE
                        self.announced[pin] = at
                case HostOutput(data):
                    assert any(isinstance(grant, Output | BiosReport) for grant in self.device.grants)
                    assert 0 < len(data) <= (4064 if self.device.granted(Queues) else 64 + written)
                case InputRoom(count):
                    assert self.device.granted(Input)
                    assert 0 < count <= (2048 if self.device.granted(Queues) else 16)
                case Reset():
                    assert self.device.granted(board.Reset)
                    assert is_write
                case TakeLine(pin, taken):
                    granted = [one for one in self.device.grants if isinstance(one, Irq | ReplacingIrq)]
                    assert isinstance(granted[pin], ReplacingIrq)
                    assert taken == 1 - self.taken[pin], "taken or given back twice"
                    assert self.lines[pin] == 0, "a line changes hands while it is low"
                    self.taken[pin] = taken
                case Suspend(wakes):
                    assert self.device.granted(board.Suspend)
                    assert is_write
                    assert wakes in (0, WAKE_BY_RTC)
                case Stop():
                    assert any(
                        isinstance(grant, StopValue | StopClean | StopPanic | BiosReport)
                        for grant in self.device.grants
                    )
                    assert is_write
                    if self.device.granted(StopClean):
                        (clean,) = self.device.granted(StopClean)
                        assert any(byte.is_in(*self.written) for byte in clean.when), (
                            "the VMM would refuse it"
                        )
                case LateWrites(register, allowed):
                    assert board.LateWrites(register) in self.device.grants
                    assert allowed in (0, 1)
                case MemoryRead(_, ranges):
                    (memory,) = self.device.granted(Memory)
                    assert len(ranges) <= memory.max_ranges
                    assert sum(size for _, size in ranges) <= memory.max_bytes
                    assert all(0 <= address < 1 << 64 for address, _ in ranges)
                case MemoryWrite(address, data, tag):
                    (memory,) = self.device.granted(Memory)
                    assert 0 <= address < 1 << 64
                    assert len(data) <= memory.max_bytes
                    assert tag == 0  # else it would be a question
                case Transfer(_, resource, offset, ranges, to_guest):
                    source = [one for one in self.device.grants if isinstance(one, Content | Resource)][
                        resource
                    ]
                    assert to_guest == 1
                    assert 0 <= offset <= source.size
                    assert len(ranges) <= source.max_ranges
                    assert sum(size for _, size in ranges) <= source.max_bytes
                    assert all(0 <= address < 1 << 64 for address, _ in ranges)
                case ContentRead(_, resource, offset, size):
                    content = self.device.granted(Content)[resource]
                    assert 0 < size <= 4064
                    assert 0 <= offset <= offset + size <= content.size
                case Window(tag, resource, offset, size, to_guest):
                    medium = self.device.granted(Medium)[resource]
                    assert 0 <= offset <= offset + size <= medium.size
                    assert 0 <= size <= medium.max_bytes
                    assert to_guest or medium.writable or not size
                    self.asked = tag
                case Queue(index, _, flags, _, _, _):
                    (queues,) = self.device.granted(Queues)
                    assert is_write
                    assert index < queues.count
                    assert flags < 4
                    self.guest.wanted.pop(index, None)
                case Walk(index, count):
                    (queues,) = self.device.granted(Queues)
                    assert index < queues.count
                    assert count <= 64
                    self.guest.wanted[index] = count
                    if not count:
                        del self.guest.wanted[index]
                case Connect(index, to_guest, resource, header, count_at, chains):
                    assert self.guest.wanted[index]
                    assert to_guest < 2
                    assert resource < len(self.device.granted(Medium))
                    assert count_at + 2 * (count_at > 0) <= header <= MOST_HEADER
                    assert 0 < chains <= 64
                case ConfigChanged():
                    assert self.device.granted(Queues)
                case ChainRead() | ChainWrite() | ChainTransfer() | ChainServe() | ChainUsed():
                    assert self.device.granted(Queues)
                    self.guest.asked(effect)
                case Flush(tag, resource):
                    assert resource < len(self.device.granted(Medium))
                    self.asked = tag
                case Aperture():
                    assert self.device.granted(board.Aperture)
                case FrameBuffer():
                    assert self.device.granted(board.FrameBuffer)
                case _:
                    raise AssertionError(f"nobody knows of {effect}")

    def snapshot(self) -> bytes:
        state = self.model.snapshot()
        assert len(state) <= MOST_STATE + OWN_MEMORY.get(self.device.model, 0)
        return state

    def twin(self, state: bytes) -> Rig:
        """A fresh model that became what `state` says, at the same time of the same board."""
        other = Rig(self.device)
        other.model.restore(state)
        other.now, other.seen, other.asked = self.now, self.seen, self.asked
        other.lines, other.taken, other.announced = (
            dict(self.lines),
            dict(self.taken),
            dict(self.announced),
        )
        other.guest = self.guest.copy()
        return other


def test_variants_are_every_model_of_the_catalogue() -> None:
    assert {device.model for device in VARIANTS.values()} == set(MODELS)


@each_model
@settings(max_examples=150)
@given(data=st.data())
def test_model_keeps_its_contract_whatever_happens(name: str, data: st.DataObject) -> None:
    rig = Rig(VARIANTS[name])
    rig.play(data.draw(steps_for(name)))
    rig.snapshot()


@each_model
@settings(max_examples=60)
@given(data=st.data())
def test_restored_model_has_the_same_future(name: str, data: st.DataObject) -> None:
    rig = Rig(VARIANTS[name])
    rig.play(data.draw(steps_for(name)))
    after = data.draw(steps_for(name))
    state = rig.snapshot()
    twin = rig.twin(state)
    assert twin.snapshot() == state
    rig.trace.clear()
    rig.play(after)
    twin.play(after)
    assert twin.trace == rig.trace
    assert twin.snapshot() == rig.snapshot()


@each_model
@settings(max_examples=60)
@given(data=st.data())
def test_snapshot_changes_nothing(name: str, data: st.DataObject) -> None:
    steps = data.draw(steps_for(name))
    quiet, watched = Rig(VARIANTS[name]), Rig(VARIANTS[name])
    quiet.play(steps)
    for step in steps:
        watched.step(step)
        assert watched.snapshot() == watched.snapshot()
    assert watched.trace == quiet.trace


@each_model
@settings(max_examples=60)
@given(data=st.data(), extra=st.lists(st.integers(0, 2 * SECOND), min_size=1, max_size=4))
def test_advancing_more_often_changes_nothing_that_the_guest_reads(
    name: str, data: st.DataObject, extra: list[int]
) -> None:
    """Time passes alike in one step and in many; only how many edges are folded into one may differ."""
    steps = data.draw(steps_for(name))
    device = VARIANTS[name]
    once, often = Rig(device), Rig(device)
    for step in steps:
        if step.kind == "deadline":
            continue  # the deadlines of the two may be different ones
        once.step(step)
        target = min(max(0, often.now + step.jump), LAST_TIME)
        for delta in sorted(extra):
            if often.now + delta < target:
                often.step(Step("advance", delta))
        often.step(step._replace(jump=target - often.now))
    numbers = [item for item in once.trace if isinstance(item, int)]
    assert [item for item in often.trace if isinstance(item, int)] == numbers
    assert often.lines == once.lines
    assert often.taken == once.taken
    assert often.rises == once.rises


@each_model
@settings(max_examples=60)
@given(data=st.data())
def test_steady_value_stays_and_reading_it_has_no_effect(name: str, data: st.DataObject) -> None:
    rig = Rig(VARIANTS[name])
    steady_of = getattr(rig.model, "steady", None)
    for step in data.draw(steps_for(name)):
        rig.step(step)
        if steady_of is None or step.kind != "read" or rig.trace[-1][1]:  # type: ignore[index]  # effects
            continue
        steady = steady_of(step.offset, step.size, rig.trace[-2])
        assert 0 <= steady <= MAX_STEADY
        deadline = rig.model.next_deadline()
        end = rig.seen + (steady >> 1) * 1000
        end = end if deadline is None else min(end, deadline)
        polled, quiet = rig.twin(rig.snapshot()), rig.twin(rig.snapshot())
        for at in sorted({rig.seen, (rig.seen + end) // 2, end - 1}):
            if rig.seen <= at < end:
                assert polled.model.read(at, step.offset, step.size) == rig.trace[-2]
                assert polled.model.take_effects() == []
                quiet.model.advance(at)
        assert polled.snapshot() == quiet.snapshot()


# --- Snapshots as hostile input --------------------------------------------------------------------------

MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, MOST_STATE), st.integers(0, 255)),
        st.tuples(st.just("flip"), st.integers(0, MOST_STATE), st.integers(0, 7)),
        st.tuples(st.just("fill"), st.integers(0, MOST_STATE), st.sampled_from([0x00, 0x7F, 0x80, 0xFF])),
        st.tuples(st.just("cut"), st.integers(0, MOST_STATE), st.just(0)),
        st.tuples(st.just("grow"), st.integers(1, 5_000), st.integers(0, 255)),
        st.tuples(st.just("drop"), st.integers(0, MOST_STATE), st.integers(1, 9)),
    ),
    min_size=1,
    max_size=3,
)


def mutated(state: bytes, mutations: Sequence[tuple[str, int, int]]) -> bytes:
    changed = bytearray(state)
    for what, number, value in mutations:
        place = number % len(changed) if changed else 0
        match what:
            case "set" if changed:
                changed[place] = value
            case "flip" if changed:
                changed[place] ^= 1 << value
            case "fill":  # a whole word: a time, a count, a length
                changed[place : place + 8] = bytes([value]) * len(changed[place : place + 8])
            case "cut":
                del changed[place:]
            case "grow":
                changed += bytes([value]) * number
            case "drop":
                del changed[place : place + value]
            case _:
                pass
    return bytes(changed)


def try_restore(rig: Rig, state: bytes) -> bool:
    """Whether `state` was taken; if not, the model is what it was."""
    before = rig.snapshot()
    deadline = rig.model.next_deadline()
    try:
        rig.model.restore(state)
    except SnapshotError:
        assert rig.model.take_effects() == []
        assert rig.snapshot() == before
        assert rig.model.next_deadline() == deadline
        return False
    return True


@each_model
@settings(max_examples=150)
@given(data=st.data(), mutations=MUTATIONS)
def test_damaged_snapshot_is_rejected_or_harmless(
    name: str, data: st.DataObject, mutations: list[tuple[str, int, int]]
) -> None:
    """What is taken is a state that the chip can have: it keeps the contract ever after."""
    rig = Rig(VARIANTS[name])
    rig.play(data.draw(steps_for(name)))
    state = mutated(rig.snapshot(), mutations)
    if try_restore(rig, state):
        check_harmless(rig, state, data.draw(steps_for(name)))


def check_harmless(rig: Rig, state: bytes, after: list[Step]) -> None:
    """A state that was taken, from nobody knows where: it settles, and keeps the contract."""
    assert rig.model.take_effects() == []
    # What follows from something else may be put right by the model; after that, nothing moves any more.
    settled = rig.snapshot()
    assert len(settled) == len(state)
    assert rig.twin(settled).snapshot() == settled
    # The lines are where the state says, which the board hears of with the next change only.
    rig.lines = dict.fromkeys(rig.lines, 0)
    rig.seen = 0  # the state may be from an earlier time than the model that took it
    lenient = Lenient(rig)
    lenient.play([Step("advance", 0), *after])
    lenient.snapshot()


class Lenient(Rig):
    """A rig around a model whose history is unknown: the first edge of a line may be either, and time may be
    any up to the largest.
    """

    def __init__(self, rig: Rig) -> None:
        self.__dict__.update(rig.__dict__)
        self._unknown = set(self.lines)
        self.announced = {}
        self.guest = rig.guest.copy()
        self.guest.is_strict = False
        self.guest.chains.clear()
        self.guest.last += 10_000  # handles that the state may know of are others

    def check_announced(self, effects: list[Effect]) -> None:
        for pin in self._unknown:
            if self.announced.get(pin, NO_RISE) <= self.seen:
                del self.announced[pin]
        super().check_announced(effects)

    def check_effects(self, effects: list[Effect], *, is_write: bool, written: int) -> None:
        for effect in effects:
            if isinstance(effect, IrqLine) and effect.pin in self._unknown:
                self._unknown.discard(effect.pin)
                self.lines[effect.pin] = 1 - effect.level
        super().check_effects(effects, is_write=is_write, written=written)


@each_model
@settings(max_examples=60)
@given(state=st.binary(max_size=600), data=st.data())
def test_bytes_that_are_no_snapshot_are_rejected(name: str, state: bytes, data: st.DataObject) -> None:
    rig = Rig(VARIANTS[name])
    rig.play(data.draw(steps_for(name, most=60)))
    own = rig.snapshot()
    # Hypothesis knows the constants of the code that it tests, and so may make up a snapshot that is one.
    assert not try_restore(rig, state) or (len(state), state[:2]) == (len(own), own[:2])


@each_model
def test_snapshot_of_another_model_is_rejected(name: str) -> None:
    rig = Rig(VARIANTS[name])
    for other in VARIANTS.values():
        if other.model != VARIANTS[name].model:
            assert not try_restore(rig, Rig(other).snapshot()), other.model


# States worth damaging: something is running, waiting, latched or half done in each.
OPENINGS: Final[dict[str, list[Step]]] = {
    "uart_16550a": [
        *program((3, 0x03), (2, 0x81), (1, 0x0F), (4, 0x0B), (0, 0x41), (0, 0x42), (0, 0x43)),
        Step("receive", 10, data=b"waiting"),
    ],
    "pit_8254": [
        *program((3, 0x34), (0, 0x10), (0, 0x27), (3, 0xB6), (2, 0x33), (2, 0x05), (4, 0x03)),
        *program((3, 0xE2), (3, 0x70), (1, 0x99)),
        Step("advance", 12_345_678),
    ],
    "rtc_mc146818": [
        *program((0, 0x0A), (1, 0x26), (0, 0x0B), (1, 0x72), (0, 0x05), (1, 0xFF)),
        Step("advance", 1_234_567_890),
    ],
    "i8042": [
        *program((1, 0x60), (0, 0x47), (0, 0xF2), (0, 0xF0), (1, 0xD1), (1, 0xD4), (0, 0xF4)),
        Step("receive", 0, data=b"\0\1\2\0\3\0\1" * 2),
        Step("receive", 0, data=b"\x1f\x9f~S" * 8),
    ],
    "shutdown_port": program((0, ord("S")), (0, ord("h"))),
    "fw_cfg": [
        Step("write", 0, 0, 2, 0x24),
        *[Step("read", 0, 1)] * 70,
        Step("write", 0, 4, 4, 0x0100_0000),
    ],
    "vga_text": program((0x24, 0x0E), (0x25, 0x07), (0x10, 0x31), (0x18, 5), (0x19, 1), (0x19, 2), (0x14, 3)),
    "pc_testdev": program((0, 0x11), (16, 1), (39, 1), (0x1_0000, 0x55), (0x1_FFFF, 0xAA)),
}

# Everything that a driver might do next, on every register, now and much later.
AFTERWARDS: Final = [
    *(Step("read", 0, offset) for offset in range(8)),
    Step("deadline", 0),
    Step("receive", 1_000, data=b"0123456789abcdefghij"),
    *(Step("write", 500, offset, 1, value) for offset in range(8) for value in (0x00, 0x36, 0xFF)),
    *(Step("read", 1_000_000, offset) for offset in range(8)),
    Step("deadline", 0),
    Step("advance", 366 * 86_400 * SECOND),
    *(Step("read", 0, offset) for offset in range(8)),
    Step("reset", LAST_TIME),
    Step("write", -LAST_TIME, 0, 1, 0x55),
]


@each_model
@pytest.mark.parametrize("opening", ["power-on", "busy"])
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_every_place_of_a_snapshot_damaged_is_rejected_or_harmless(
    name: str, opening: str, width: int
) -> None:
    device = VARIANTS[name]
    opened = Rig(device)
    opened.play(OPENINGS.get(device.model, []) if opening == "busy" else [])
    good = opened.snapshot()
    patterns = {bytes([fill]) * width for fill in (0x00, 0x01, 0x0F, 0x7F, 0x80, 0xFF)}
    patterns |= {b"\xff" * (width - 1) + b"\x7f", b"\x01" + bytes(width - 1), bytes(width - 1) + b"\x01"}
    taken = 0
    last = len(good) - width
    # Of much memory, where it begins and where it ends.
    places = range(last + 1) if last < MOST_STATE else (*range(40), *range(last - 9, last + 1))
    for place in places:
        for pattern in patterns:
            state = good[:place] + pattern + good[place + width :]
            rig = opened.twin(good)
            if try_restore(rig, state):
                taken += 1
                check_harmless(rig, state, AFTERWARDS)
    assert taken or width > 1  # one byte or another was what it is already


# --- Bounded state ---------------------------------------------------------------------------------------


@each_model
@settings(max_examples=25)
@given(data=st.data(), typed=st.binary(min_size=1, max_size=64))
def test_state_does_not_grow_with_input(name: str, data: st.DataObject, typed: bytes) -> None:
    """A guest that does the same thing over and over, and a host that types as fast as it can."""
    rig = Rig(VARIANTS[name])
    steps = data.draw(steps_for(name, most=60))
    sizes = []
    for turn in range(60):
        rig.play([step._replace(jump=1_000) for step in steps])
        for _ in range(10):
            rig.step(Step("receive", 0, data=typed * 10))
        rig.trace.clear()
        if turn in (9, 59):
            sizes.append(footprint(rig.model))
    # A snapshot has one size, and so would hide what grows: the objects themselves are weighed. Integers
    # take a few bytes more as they grow, and a bytearray keeps some room.
    early, late = sizes
    assert late <= early + 256
    assert late < 16_384 + OWN_MEMORY.get(rig.device.model, 0)
