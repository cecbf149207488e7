"""What all drives of an IDE channel have: phases of a command, data of their own, windows, power modes.

Theory of operation
-------------------
A command goes from phase to phase until the drive is IDLE again:

    SENDING   the host reads bytes that the drive has: IDENTIFY, answers to packets
    TAKING    the host writes a packet
    FETCHING  the VMM reads bytes of the medium (BSY)
    READING   the host reads them from the VMM
    WRITING   the host writes bytes of the medium to the VMM
    STORING   the VMM writes them to the medium (BSY)
    FLUSHING  the VMM brings the medium to stable storage (BSY)
    RESETTING the host holds SRST (BSY)

Bytes of the medium never come here: a `Window` says which ones the VMM moves. Each window and each flush is a
question with a tag of its own, and `complete` moves the drive on. An answer to an older question is ignored.

`Drive` itself is a place without a drive. Its registers take what the host writes, since all drives of a
channel do, and its status is 0.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.contract.bulk_data import TO_GUEST, Flush, Window
from kvmbox.contract.model import DONE, MOVED, SnapshotError
from kvmbox.devices.ide.registers import (
    ALWAYS,
    BSY,
    COUNT,
    DRDY,
    DRQ,
    ERR,
    NO_DRIVE_SIGNATURE,
    PASSED,
    READY,
    TASK_SIZE,
    TaskFile,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from kvmbox.contract.model import Effect

IDLE: Final = 0
SENDING: Final = 1
TAKING: Final = 2
FETCHING: Final = 3
READING: Final = 4
WRITING: Final = 5
STORING: Final = 6
FLUSHING: Final = 7
RESETTING: Final = 8

_STATUS: Final = {
    SENDING: READY | DRQ,
    TAKING: READY | DRQ,
    FETCHING: BSY,
    READING: READY | DRQ,
    WRITING: READY | DRQ,
    STORING: BSY,
    FLUSHING: BSY,
    RESETTING: BSY,
}
_AWAITED: Final = {FETCHING: DONE, READING: MOVED, WRITING: MOVED, STORING: DONE, FLUSHING: DONE}
"""By phase: the status of the answer that ends it."""

WINDOWS: Final = (FETCHING, READING, WRITING)
"""Phases in which the VMM has a window of this drive."""

# What CHECK POWER MODE says. A sleeping drive does not answer.
STANDBY: Final = 0x00
SLEEPING: Final = 0x01
ACTIVE: Final = 0xFF

CHECK_POWER_MODE: Final = (0x98, 0xE5)
_MODES: Final = {
    **dict.fromkeys((0x94, 0xE0, 0x96, 0xE2), STANDBY),
    **dict.fromkeys((0x95, 0xE1, 0x97, 0xE3), ACTIVE),  # idle
    **dict.fromkeys((0x99, 0xE6), SLEEPING),
}
"""By command: the power mode that it sets. The older codes are those of ATA-3."""

_TAG_STEP: Final = 2  # the lowest bit is the drive's place
_TAGS: Final = 1 << 32

MAX_BUFFER: Final = 512
PACKET_SIZE: Final = 12

_SNAPSHOT: Final = Struct(f"<{TASK_SIZE}s3BI3H")


class Drive:
    """A place without a drive, and the base of drives. `unit` is 0 for the master, 1 for the slave."""

    __slots__ = ("asked", "buffer", "end", "interrupt", "phase", "position", "power", "tag", "task", "unit")

    signature: tuple[int, int] = NO_DRIVE_SIGNATURE
    at_rest: int = 0
    """The status after a reset."""
    phases: frozenset[int] = frozenset({IDLE})
    """Those that a drive of this kind may be in."""
    more: Struct = Struct("<")
    """What a kind has in its snapshot beyond what all have."""

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self.asked: list[Effect] = []
        self.tag = unit  # of the last question
        self.power_on()

    def power_on(self) -> None:
        """The registers after a hardware reset. Tags go on: what was asked for before is nobody's answer."""
        self.task = TaskFile()
        self.interrupt = False
        self.power = ACTIVE
        self._rest(self.at_rest)
        self.sign()

    def _rest(self, status: int) -> None:
        self.phase = IDLE
        self.task.status = status
        self.buffer = b""
        self.position = self.end = 0  # of the host in the buffer, and of the end of the DRQ block

    def _enter(self, phase: int) -> None:
        self.phase = phase
        self.task.status = _STATUS[phase]

    def sign(self) -> None:
        """Set the registers that say what kind of drive this is, or that there is none."""
        self.task.sign(self.signature)

    @property
    def is_present(self) -> bool:
        return len(self.phases) > 1

    # --- Commands ---------------------------------------------------------------------------------------

    def command(self, code: int) -> None:
        """The host gives a command. The drive is not busy."""

    def done(self) -> None:
        """A command has ended well: the host hears of it by an interrupt."""
        self._rest(READY)
        self.interrupt = True

    def fail(self, error: int) -> None:
        """A command has ended with these bits in the error register."""
        self._rest(DRDY | ERR)
        self.task.error = error
        self.interrupt = True

    def send(self, data: bytes, end: int) -> None:
        """Let the host read `data`, and up to `end` of it in the first DRQ block."""
        self.buffer, self.position, self.end = data, 0, end
        self._enter(SENDING)
        self.interrupt = True

    def set_power(self, code: int) -> None:
        """A command of the power management feature set (ATA/ATAPI-6, 6.9)."""
        if code in CHECK_POWER_MODE:
            self.task.set_register(COUNT, self.power)
        else:
            self.power = _MODES[code]
        self.done()

    # --- Data of the drive itself -----------------------------------------------------------------------

    def read_data(self, size: int) -> int:
        """The host reads 2 or 4 bytes. What does not fit the DRQ block gives 0 and moves nothing."""
        # A block of odd size ends with a byte of padding.
        if self.phase != SENDING or self.position + size > self.end + (self.end & 1):
            return 0
        value = int.from_bytes(self.buffer[self.position : self.position + size], "little")
        self.position += size
        if self.position >= self.end:
            self.sent()
        return value

    def write_data(self, size: int, value: int) -> None:
        """The host writes 2 or 4 bytes. What does not fit the packet is dropped."""
        if self.phase != TAKING or len(self.buffer) + size > PACKET_SIZE:
            return
        self.buffer += value.to_bytes(size, "little")
        if len(self.buffer) == PACKET_SIZE:
            self.taken(self.buffer)

    def sent(self) -> None:
        """The host has read the last byte of a DRQ block."""
        self._rest(READY)

    def taken(self, packet: bytes) -> None:
        """The host has written a packet."""

    # --- Data of the medium -----------------------------------------------------------------------------

    def _next_tag(self) -> int:
        self.tag = (self.tag + _TAG_STEP) % _TAGS
        return self.tag

    def open_window(self, phase: int, offset: int, size: int, to_guest: int) -> None:
        """Have the VMM move `size` bytes of the medium: to the host (FETCHING), or from it (WRITING).

        `to_guest` is that of the window.
        """
        self._enter(phase)
        self.asked.append(Window(self._next_tag(), self.unit, offset, size, to_guest))

    def flush(self) -> None:
        """Have the VMM flush the medium."""
        self._enter(FLUSHING)
        self.asked.append(Flush(self._next_tag(), self.unit))

    def complete(self, tag: int, status: int) -> None:
        """See MemoryModel."""
        if tag != self.tag or self.phase not in _AWAITED:
            return
        if status == _AWAITED[self.phase]:
            self.move_on()
        elif status not in (DONE, MOVED):
            self.failed(status)

    def move_on(self) -> None:
        """What the drive waited for has happened."""

    def failed(self, status: int) -> None:
        """What the drive waited for has failed."""

    # --- Resets -----------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """End a command that is under way, without a result."""
        if self.phase in WINDOWS:
            # Of no bytes, and to the host: that is granted for a medium that cannot be written, too.
            self.asked.append(Window(self._next_tag(), self.unit, 0, 0, TO_GUEST))
        self._rest(self.at_rest)
        self.interrupt = False

    def hold(self) -> None:
        """The host sets SRST."""
        self.cancel()
        if self.is_present:
            self._enter(RESETTING)

    def diagnose(self) -> None:
        """A software reset has ended, or the host has asked for a diagnosis."""
        self.cancel()
        self.power = ACTIVE
        self.sign()
        self.task.previous = [0, 0, 0, 0, 0]
        self.task.device = ALWAYS
        if self.is_present:
            self.task.error = PASSED

    # --- Snapshots --------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole state."""
        numbers = int(self.interrupt), self.phase, self.power, self.tag, self.position, self.end
        base = _SNAPSHOT.pack(self.task.pack(), *numbers, len(self.buffer))
        return base + self.more.pack(*self.pack_more()) + self.buffer

    def restore(self, state: bytes) -> None:
        """Become what `snapshot` saw. A drive that refuses the state is of no use any more."""
        size = _SNAPSHOT.size + self.more.size
        if len(state) < size:
            raise SnapshotError(f"a drive of {len(state)} bytes")
        task, interrupt, phase, power, tag, position, end, length = _SNAPSHOT.unpack_from(state)
        self.task.unpack(task)
        self.buffer = state[size:]
        self.position, self.end = position, end
        if len(self.buffer) != length or not self._has_buffer(phase):
            raise SnapshotError(f"a buffer of {length} bytes, at {position} to {end}, in phase {phase}")
        if phase not in self.phases or not self._has_status(phase) or tag % _TAG_STEP != self.unit:
            raise SnapshotError(f"status {self.task.status:#x} in phase {phase}, tag {tag}")
        if interrupt > self.is_present or power not in (ACTIVE, STANDBY, SLEEPING):
            raise SnapshotError(f"an interrupt {interrupt} of a drive in power mode {power:#x}")
        self.interrupt, self.phase, self.power, self.tag = bool(interrupt), phase, power, tag
        self.unpack_more(*self.more.unpack_from(state, _SNAPSHOT.size))

    def _has_buffer(self, phase: int) -> bool:
        length = len(self.buffer)
        if phase == SENDING:
            return self.position < self.end <= length <= MAX_BUFFER and self.position % 2 == 0
        if phase == TAKING:
            return length < PACKET_SIZE and length % 2 == 0 and self.position == self.end == 0
        return length == self.position == self.end == 0

    def _has_status(self, phase: int) -> bool:
        status = self.task.status
        if not self.is_present:
            return status == self.task.error == 0
        if phase != IDLE:
            return status == _STATUS[phase]
        return status in (self.at_rest, READY, DRDY | ERR)

    def pack_more(self) -> tuple[int, ...]:
        """The values of `more`."""
        return ()

    def unpack_more(self, *values: int) -> None:
        """Take the values of `more`, or raise SnapshotError. What all drives have is restored already."""
