"""The part of the VMM for an IDE channel: serves the windows from media in memory, notes the interrupt line.

The media are bytearrays. An answer comes within the access that asked, or, with `holds`, when a test gives
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from kvmbox.contract.bulk_data import QUIET_END, QUIET_START, RISES, TO_GUEST, Flush, Window
from kvmbox.contract.model import DONE, MOVED, Effect, IrqLine
from kvmbox.devices.ide.model import CD, DISK, PARAMETERS, READ_ONLY, IdeChannel
from kvmbox.devices.ide.registers import (
    ALWAYS,
    BSY,
    COMMAND,
    CONTROL,
    COUNT,
    DATA,
    DEV,
    DEVICE,
    DRQ,
    FEATURES,
    LBA,
    LBA_HIGH,
    LBA_LOW,
    LBA_MID,
    STATUS,
)

SECTOR: Final = 512
CD_SECTOR: Final = 2048
MOST_BLOCKS: Final = 10_000
"""DRQ blocks of one packet command."""


def disk(sectors: int, serial: bytes = b"", *, writable: bool = True) -> bytes:
    """Parameters of a disk."""
    return PARAMETERS.pack(DISK if writable else DISK | READ_ONLY, sectors, serial.ljust(20))


def cd(sectors: int, serial: bytes = b"") -> bytes:
    """Parameters of a CD drive."""
    return PARAMETERS.pack(CD, sectors, serial.ljust(20))


def pattern(sectors: int, size: int = SECTOR) -> bytearray:
    """Sectors that differ from each other, as do their words."""
    return bytearray(_pattern(sectors, size))


@cache
def _pattern(sectors: int, size: int) -> bytes:
    return bytes((index * 7 + index // size) & 0xFF for index in range(sectors * size))


GOES_ON: Final = TO_GUEST | QUIET_START | RISES
ALONE: Final = GOES_ON | QUIET_END
"""How a disk opens a window to the guest: that of a block which others follow, and that of the last one."""


class IdeHost:
    """A channel, its media, and its interrupt line.

    `status` is what the next question is answered with. `questions` are those that are not answered yet.
    """

    def __init__(
        self,
        *,
        master: bytes = b"",
        slave: bytes = b"",
        media: tuple[bytearray, bytearray] | None = None,
        holds: bool = False,
    ) -> None:
        self.model = IdeChannel(master=master, slave=slave)
        self.media = media or (bytearray(), bytearray())
        self.holds = holds
        self.status = DONE
        self.line = 0
        self.rises = 0
        self.questions: list[Window | Flush] = []
        self.asked: list[Effect] = []
        """All windows and flushes so far."""
        self._window: Window | None = None
        self._data = b""  # what is still to be read, or what has been written

    # --- Accesses ---------------------------------------------------------------------------------------

    def read(self, offset: int, size: int = 1) -> int:
        """What the guest reads, of the VMM or of the model."""
        window = self._window
        if offset == DATA and size in (2, 4) and window and window.to_guest and len(self._data) >= size:
            value = int.from_bytes(self._data[:size], "little")
            self._data = self._data[size:]
            if not self._data:
                self._window = None
                self._tell(window, MOVED)
            return value
        value = self.model.read(0, offset, size)
        self._follow()
        return value

    def write(self, offset: int, value: int, size: int = 1) -> None:
        """The guest writes, to the VMM or to the model."""
        window = self._window
        fits = window is not None and not window.to_guest and len(self._data) + size <= window.size
        if offset == DATA and size in (2, 4) and window and fits:
            self._data += value.to_bytes(size, "little")
            if len(self._data) == window.size:
                self._window = None
                self.model.complete(0, window.tag, MOVED)
                self._question(window)
                self._follow()
            return
        self.model.write(0, offset, size, value)
        self._follow()

    # --- The VMM ----------------------------------------------------------------------------------------

    def _tell(self, question: Window | Flush, status: int) -> None:
        self.model.complete(0, question.tag, status)
        effects = self.model.take_effects()
        quiet = {DONE: QUIET_START, MOVED: QUIET_END}.get(status, 0)
        if isinstance(question, Window) and question.to_guest & quiet and not self.holds:
            rises = quiet == QUIET_START and question.to_guest & RISES and not self.line
            assert effects == ([IrqLine(0, 1)] if rises else [])
        self._follow(effects)

    def _follow(self, effects: Sequence[Effect] | None = None) -> None:
        for effect in self.model.take_effects() if effects is None else effects:
            match effect:
                case IrqLine(_, level, _):
                    assert level != self.line
                    self.line = level
                    self.rises += level
                case Window(_, resource, offset, size, to_guest):
                    self.asked.append(effect)
                    assert offset + size <= len(self.media[resource])
                    self._window = None
                    self.questions = [one for one in self.questions if not isinstance(one, Window)]
                    if size and to_guest:
                        self._question(effect)
                    elif size:
                        self._window, self._data = effect, b""
                case Flush():
                    self.asked.append(effect)
                    self._question(effect)
                case _:
                    raise AssertionError(effect)

    def _question(self, question: Window | Flush) -> None:
        self.questions.append(question)
        if not self.holds:
            self.answer()

    def answer(self) -> None:
        """Answer the oldest question, with `status`; the next one gets DONE."""
        question = self.questions.pop(0)
        status, self.status = self.status, DONE
        if isinstance(question, Window) and status == DONE:
            medium = self.media[question.resource]
            place = slice(question.offset, question.offset + question.size)
            if question.to_guest:
                self._window, self._data = question, bytes(medium[place])
            else:
                medium[place] = self._data
        self._tell(question, status)

    # --- What a driver does -----------------------------------------------------------------------------

    def select(self, unit: int, device: int = LBA) -> None:
        """Write the device register."""
        self.write(DEVICE, ALWAYS | device | (DEV if unit else 0))

    def task(self, count: int, lba: int, features: int = 0) -> None:
        """Write the registers of an LBA28 command. The device register is written before the others."""
        self.write(DEVICE, self.read(DEVICE) & ~0xF | lba >> 24 & 0xF)
        self.write(FEATURES, features)
        self.write(COUNT, count & 0xFF)
        for register in (LBA_LOW, LBA_MID, LBA_HIGH):
            self.write(register, lba >> 8 * (register - LBA_LOW) & 0xFF)

    def wide_task(self, count: int, lba: int) -> None:
        """Write the registers of an LBA48 command, high bytes first."""
        self.write(COUNT, count >> 8 & 0xFF)
        for register in (LBA_LOW, LBA_MID, LBA_HIGH):
            self.write(register, lba >> 24 + 8 * (register - LBA_LOW) & 0xFF)
        self.write(COUNT, count & 0xFF)
        for register in (LBA_LOW, LBA_MID, LBA_HIGH):
            self.write(register, lba >> 8 * (register - LBA_LOW) & 0xFF)

    def command(self, code: int) -> int:
        """Give a command; the alternate status after it."""
        self.write(COMMAND, code)
        return self.read(CONTROL)

    def take(self, size: int) -> bytes:
        """Read `size` bytes of data by words."""
        return b"".join(self.read(DATA, 2).to_bytes(2, "little") for _ in range(size // 2))

    def give(self, data: bytes) -> None:
        """Write data by words."""
        for place in range(0, len(data), 2):
            self.write(DATA, int.from_bytes(data[place : place + 2], "little"), 2)

    def end(self) -> int:
        """Read the status, which takes the interrupt away."""
        return self.read(STATUS)

    def packet(self, *command: int, limit: int = 0xFFFE, features: int = 0) -> bytes:
        """Give a packet command, and read all that it sends."""
        self.write(FEATURES, features)
        self.write(LBA_MID, limit & 0xFF)
        self.write(LBA_HIGH, limit >> 8)
        if not self.command(0xA0) & DRQ:
            return b""
        self.give(bytes(command).ljust(12, b"\0"))
        data = b""
        for _ in range(MOST_BLOCKS):
            if self.read(CONTROL) & (DRQ | BSY) != DRQ:
                break
            size = self.read(LBA_MID) | self.read(LBA_HIGH) << 8
            data += self.take(size + (size & 1))[:size]
        return data
