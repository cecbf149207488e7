"""Seeded random programs for an IDE channel with a disk and a CD drive, as those of programs.py."""

from __future__ import annotations

import random
from typing import Final

from kvmbox.devices.ide.registers import DEV, HOB, NIEN, SRST
from tests.differential.programs import Program

DISK_SECTORS: Final = 2000
CD_SECTORS: Final = 60
HEADS: Final = 4
PER_TRACK: Final = 10

_READS: Final = ((0x20, False), (0x21, False), (0x24, True), (0xC4, False), (0x29, True))
_WRITES: Final = ((0x30, False), (0x31, False), (0x34, True), (0xC5, False), (0x39, True))
_MULTIPLE: Final = (0xC4, 0x29, 0xC5, 0x39)
_UNKNOWN: Final = (0x00, 0x08, 0x11, 0x22, 0x5A, 0x80, 0xA1, 0xDE, 0xF0, 0xFF)
_FEATURES: Final = (
    (0x02, 0),
    (0x82, 0),
    (0xAA, 0),
    (0x55, 0),
    (0x03, 0x08),
    (0x03, 0x0C),
    (0x81, 0),
    (0x5D, 0),
)
_CD_UNKNOWN: Final = (0x10, 0x24, 0x30, 0x40, 0x70, 0x91, 0xC4, 0xC6, 0xEA, 0xF8)
_COMPARED_WORDS: Final = frozenset({*range(10, 20), 47, 55, 56, 59, 60, 61, 64, *range(100, 104)})
_LIMITS: Final = (2, 10, 64, 999, 1000, 2047, 2048, 4096, 0xFFFE, 0xFFFF)
_STATUS: Final = "inb 0x1f7"
_AVOIDED: Final = (
    *("ide-dma", "ide-verify-range", "ide-write-range", "ide-chs-range", "ide-no-sectors", "ide-pending"),
    *(
        "ide-selected-line",
        "ide-srst-held",
        "ide-srst-selects",
        "ide-srst-interrupt",
        "ide-diagnosis",
        "ide-power",
        "ide-sleep",
    ),
    *("ide-idle-dsc", "ide-cd-power", "ide-features", "ide-odd-block", "ide-no-limit", "ide-sense-kept"),
    *(
        "ide-names",
        "ide-packet-dma",
        "ide-all-pages",
        "ide-capabilities",
        "ide-audio-page",
        "ide-mode-sense-6",
        "ide-session",
    ),
    *("ide-toc-format", "ide-sub-channel", "ide-raw-sectors", "ide-byte-of-data", "ide-product-data"),
    *("ide-first-feature", "ide-device-reset", "ide-packet-reset", "ide-previous-error"),
)


class _IdeProgram:
    """The disk is the master, the CD drive the slave."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.program = Program(14)
        self.multiple = 16
        self.nien = 0
        self.unit = 0
        self.errors = [0xFF, 0xFF]  # of each drive: the bits of the error register that count
        for key in _AVOIDED:
            self.program.because_of(key)
        self.medium_type = self.program.because_of("ide-medium-type").mask
        self.idnf = self.program.because_of("ide-idnf").mask
        # QEMU would take the translation from the size or the partition table; then both have the same one.
        self.out(2, PER_TRACK)
        self.out(6, 0xA0 | HEADS - 1)
        self.command(0x91)

    # --- Registers --------------------------------------------------------------------------------------

    def out(self, register: int, value: int) -> None:
        self.program.do(f"outb {0x1F0 + register:#x} {value:#x}")

    def control(self, value: int) -> None:
        self.program.do(f"outb 0x3f6 {value:#x}")

    def registers(self) -> None:
        """The alternate status and all other registers; some of their previous contents."""
        self.program.do("inb 0x3f6")
        self.program.do("inb 0x1f1", mask=self.errors[self.unit])
        for register in range(2, 7):
            self.program.do(f"inb {0x1F0 + register:#x}")
        if self.rng.randrange(4) == 0:
            self.control(HOB | self.nien)
            for register in range(2, 7):
                self.program.do(f"inb {0x1F0 + register:#x}")
            self.control(self.nien)

    def command(self, code: int, *, error: int = 0xFF) -> None:
        """Give a command, and wait until the drive has done its first part."""
        self.errors[self.unit] = error
        self.program.do(f"outb 0x1f7 {code:#x}", "wait")
        self.registers()
        self.program.do(_STATUS)

    def block(self, words: int) -> None:
        """Read a DRQ block, in one of several ways."""
        rng = self.rng
        if words >= 8 and rng.randrange(4) == 0:
            self.program.do("inl 0x1f0")
            self.program.do("inw 0x1f0")
            words -= 3
        if words >= 8 and rng.randrange(8) == 0:  # a double word where there is one word: nothing moves
            self.program.do(f"words {words - 1}", "wait")
            self.program.do("inl 0x1f0")
            words = 1
        self.program.do(f"words {words}", "wait")
        self.registers()
        self.program.do(_STATUS)

    # --- The disk ---------------------------------------------------------------------------------------

    def address(self, wide: bool, count: int, *, may_exceed: bool) -> bool:
        """Set the registers of a command; whether all sectors are there."""
        rng = self.rng
        exceeds = may_exceed and rng.randrange(5) == 0
        lba = (
            rng.randrange(DISK_SECTORS - 4, DISK_SECTORS + 2)
            if exceeds
            else rng.randrange(DISK_SECTORS - 300)
        )
        for register in (1, 2, 3, 4, 5):  # nobody's business, and then the high bytes of a wide address
            self.out(register, rng.randrange(256) if not wide or register == 1 else 0)
        if (rng.randrange(3) and not wide) or lba >= DISK_SECTORS:
            device = 0xE0
            low, mid, high = (lba >> shift & 0xFF for shift in (0, 8, 16))
        elif wide:
            device = 0x40
            low, mid, high = (lba >> shift & 0xFF for shift in (0, 8, 16))
        else:
            track, sector = divmod(lba, PER_TRACK)
            cylinder, head = divmod(track, HEADS)
            low, mid, high, device = sector + 1, cylinder & 0xFF, cylinder >> 8, 0xA0 | head
        for register, value in zip((6, 2, 3, 4, 5), (device, count & 0xFF, low, mid, high), strict=True):
            self.out(register, value)
        return lba + count <= DISK_SECTORS

    def disk_read(self) -> None:
        code, wide = self.rng.choice(_READS)
        count = self.rng.choice((1, 1, 2, 3, 17, 33, 40))
        block = self.multiple if code in _MULTIPLE else 1
        good = self.address(wide, count, may_exceed=True)
        error = 0xFF if good else self.idnf
        self.command(code, error=error)
        while count > 0 and block:
            self.block(256 * min(block, count))
            count -= block

    def disk_write(self) -> None:
        code, wide = self.rng.choice(_WRITES)
        count = self.rng.choice((1, 1, 2, 3, 17, 20))
        block = self.multiple if code in _MULTIPLE else 1
        if not block:
            return
        self.address(wide, count, may_exceed=False)
        self.command(code)
        while count > 0:
            words = 256 * min(block, count)
            self.program.do(f"outl 0x1f0 {self.rng.getrandbits(32):#x}")
            self.program.do(f"fill {words - 2} {self.rng.getrandbits(16)}", "wait")
            self.registers()
            self.program.do(_STATUS)
            count -= block

    def disk_other(self) -> None:
        rng = self.rng
        match rng.randrange(10):
            case 0:
                self.address(False, 3, may_exceed=False)
                self.command(rng.choice((0x40, 0x41, 0x70)))
            case 1:
                count = rng.choice((0, 1, 2, 3, 8, 16, 17, 32, 255))
                self.out(2, count)
                self.command(0xC6)
                if count <= 16 and not count & count - 1:
                    self.multiple = count
            case 2:
                feature, count = rng.choice(_FEATURES)
                self.out(1, feature)
                self.out(2, count)
                self.command(0xEF)
            case 3:
                self.command(rng.choice((0xE7, 0xEA)))
            case 4:
                self.command(rng.choice((0xE5, 0x98)))
            case 5:
                self.out(6, 0xE0)
                self.command(rng.choice((0xF8, 0x27)))
            case 6:
                self.command(rng.choice(_UNKNOWN))
            case 7:
                self.command(0x10)
            case 8:
                self.identify(0xEC)
            case _:
                for register in (1, 2, 3, 4, 5):
                    self.out(register, rng.randrange(256))
                self.registers()

    def identify(self, code: int) -> None:
        self.command(code)
        self.program.because_of("ide-identify")
        for word in range(256):
            self.program.do("inw 0x1f0", mask=0xFFFF if word in _COMPARED_WORDS else 0)
        self.registers()
        self.program.do(_STATUS)

    # --- The CD drive -----------------------------------------------------------------------------------

    def packet(self, *command: int, size: int, limit: int) -> None:
        """A packet command that sends `size` bytes, in blocks of at most `limit`."""
        for register, value in ((1, 0), (4, limit & 0xFF), (5, limit >> 8)):
            self.out(register, value)
        self.command(0xA0)
        data = bytes(command).ljust(12, b"\0")
        words = [int.from_bytes(data[place : place + 2], "little") for place in range(0, 12, 2)]
        self.program.do(*(f"outw 0x1f0 {word:#x}" for word in words), "wait")
        self.registers()
        self.program.do(_STATUS)
        limit = min(limit, 0xFFFE) & ~1 if size > limit else size
        while size > 0:
            self.block(min(size, limit) // 2)
            size -= limit

    def cd_read(self) -> None:
        rng = self.rng
        count = rng.choice((0, 1, 1, 2, 5))
        lba = rng.choice((rng.randrange(CD_SECTORS), CD_SECTORS - 1, rng.randrange(CD_SECTORS - 5)))
        size = count * 2048 if lba + count <= CD_SECTORS else 0
        limit = rng.choice([one for one in _LIMITS if size < 4096 or one > 500])
        match rng.randrange(3):
            case 0:
                self.packet(0x28, 0, 0, 0, 0, lba, 0, 0, count, size=size, limit=limit)
            case 1:
                self.packet(0xA8, 0, 0, 0, 0, lba, 0, 0, 0, count, size=size, limit=limit)
            case _:
                parts = rng.choice((0x10, 0x10, 0x10, 0x00, 0x20))
                self.packet(
                    0xBE, 0, 0, 0, 0, lba, 0, 0, count, parts, size=size * (parts == 0x10), limit=limit
                )
        if lba + count > CD_SECTORS:
            self.sense()

    def sense(self) -> None:
        """Sense data, but for the byte whose bit 7 differs."""
        self.packet(0x03, 0, 0, 0, 18, size=0, limit=0xFFFE)
        self.masked_block(9, 0xFF7F)

    def masked_block(self, words: int, *masks: int) -> None:
        """A block whose first words are compared under masks."""
        for mask in masks[:words]:
            self.program.do("inw 0x1f0", mask=mask)
        if words > len(masks):
            self.block(words - len(masks))
        else:
            self.program.do("wait")
            self.registers()
            self.program.do(_STATUS)

    def cd_other(self) -> None:
        rng = self.rng
        limit = rng.choice((2, 8, 64, 0xFFFE))
        as_time, allocation = rng.choice((0, 2)), rng.choice((0, 4, 8, 12, 40))
        match rng.randrange(14):
            case 0:
                self.packet(0x00, size=0, limit=rng.choice((0, limit)))
            case 1:
                self.packet(0x12, 0, 0, 0, rng.choice((4, 8)), size=8, limit=limit)
            case 2:
                self.packet(0x25, size=8, limit=limit)
            case 3:
                first = rng.choice((0, 1, 0xAA, 2))
                size = {0: 20, 1: 20, 0xAA: 12, 2: 0}[first]
                self.packet(
                    0x43, as_time, 0, 0, 0, 0, first, 0, allocation, size=min(size, allocation), limit=limit
                )
                if not size:
                    self.sense()
            case 4:
                self.packet(
                    0x43, as_time, 0, 0, 0, 0, 0, 0, allocation, 0x80, size=min(48, allocation), limit=limit
                )
            case 5:
                page = rng.choice((0x01, 0x01, 0x05, 0x41, 0xC1))
                size = min(16, allocation) if page == 0x01 else 0
                self.packet(0x5A, 0, page, 0, 0, 0, 0, 0, allocation, size=0, limit=0xFFFE)
                if size:
                    self.masked_block(size // 2, 0xFFFF, self.medium_type)
                elif page != 0x01:
                    self.sense()
            case 6:
                self.packet(0x46, rng.choice((0, 1)), 0, 0, 0, 0, 0, 0, 40, size=20, limit=limit)
            case 7:
                classes = rng.choice((0x10, 0x12, 0x00, 0x02))
                size = 8 if classes & 0x10 else 4
                self.packet(0x4A, 1, 0, 0, classes, 0, 0, 0, 8, size=size, limit=limit)
            case 8:
                self.packet(0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 8, size=8, limit=limit)
            case 9:
                self.packet(0x51, 0, 0, 0, 0, 0, 0, 0, allocation, size=min(34, allocation), limit=limit)
            case 10:
                lba = rng.choice((0, CD_SECTORS - 1, CD_SECTORS))
                self.packet(0x2B, 0, 0, 0, 0, lba, size=0, limit=limit)
                if lba == CD_SECTORS:
                    self.sense()
            case 11:
                self.packet(0xFF, size=0, limit=limit)
                self.sense()
            case 12:
                self.tray()
            case _:
                if rng.randrange(2):
                    self.command(rng.choice((*_CD_UNKNOWN, 0x20, 0xEC, 0xE7)))
                else:
                    self.identify(0xA1)

    def tray(self) -> None:
        """Lock, try, unlock, open, look, close."""
        lock, eject, load = (0x1E, 0, 0, 0, 1), (0x1B, 0, 0, 0, 2), (0x1B, 0, 0, 0, 3)
        self.packet(*lock, size=0, limit=8)
        self.packet(*eject, size=0, limit=8)
        self.sense()
        self.packet(0x1E, size=0, limit=8)
        self.packet(*eject, size=0, limit=8)
        for opcode in (0x00, 0x25, 0x28, 0x43, 0x51):
            self.packet(opcode, size=0, limit=8)
            self.sense()
        self.packet(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, size=8, limit=8)
        self.packet(*load, size=0, limit=8)
        self.packet(0x00, size=0, limit=8)

    # --- Both -------------------------------------------------------------------------------------------

    def software_reset(self) -> None:
        self.unit = 0
        self.out(6, 0xA0)
        self.program.do(f"outb 0x3f6 {SRST:#x}", "outb 0x3f6 0", "wait", watch=False)
        self.out(6, 0xA0)
        self.program.do(_STATUS, watch=False)
        self.registers()

    def without_interrupt(self) -> None:
        self.nien = NIEN
        self.control(NIEN)
        self.disk_read()
        self.disk_other()
        self.nien = 0
        self.control(0)

    def step(self) -> None:
        rng = self.rng
        choice = rng.randrange(20)
        if choice < 12:
            self.unit = 0
            self.out(6, 0xE0 | rng.randrange(16))
            rng.choice((self.disk_read, self.disk_write, self.disk_other))()
        elif choice < 18:
            self.unit = 1
            self.out(6, 0xA0 | DEV)
            rng.choice((self.cd_read, self.cd_other, self.cd_other))()
        elif choice == 18:
            self.unit = 0
            self.out(6, 0xE0)
            self.without_interrupt()
        else:
            self.software_reset()


def ide_program(seed: int, size: int) -> Program:
    """`size` lines at least."""
    ide = _IdeProgram(random.Random(seed))
    while len(ide.program.lines) < size:
        ide.step()
    return ide.program
