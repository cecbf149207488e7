"""A CD-ROM drive: the packet device of ATA/ATAPI-6 and SFF-8020i, with commands of MMC-3.

PACKET takes a command of 12 bytes without an interrupt. Then data go to the host in DRQ blocks, each with
an interrupt and its size in the byte count registers. The host's byte count limit is there when it gives
PACKET; a block that is not the last has an even size (ATA/ATAPI-6, 8.23). An interrupt without DRQ ends the
command. The interrupt reason says what each one means.

A command that fails sets sense data. They last until REQUEST SENSE has fetched them, or another command
comes. There is no unit attention after a reset, as in QEMU. The host may open and close the tray; the
medium stays.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.contract.bulk_data import TO_GUEST
from kvmbox.contract.model import BEYOND_END, SnapshotError
from kvmbox.devices.ide import packet_replies as replies
from kvmbox.devices.ide.drive import (
    CHECK_POWER_MODE,
    FETCHING,
    IDLE,
    READING,
    RESETTING,
    SENDING,
    SLEEPING,
    TAKING,
    Drive,
)
from kvmbox.devices.ide.identify import IDENTIFY_SIZE, identify_cd
from kvmbox.devices.ide.packet_replies import CD_SECTOR_SIZE
from kvmbox.devices.ide.registers import (
    ABRT,
    ALWAYS,
    COMMAND_PACKET,
    COUNT,
    DEV,
    DRDY,
    ERR,
    FEATURES,
    PACKET_SIGNATURE,
    READY,
    TO_HOST,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final

MOST_SECTORS: Final = (1 << 32) - 1

DEVICE_RESET: Final = 0x08
PACKET: Final = 0xA0
_READ_SECTORS: Final = (0x20, 0x21)  # aborted, and answered with the signature (ATA/ATAPI-6, 8.34)
_IDENTIFY_DEVICE: Final = 0xEC
_IDENTIFY_PACKET_DEVICE: Final = 0xA1
_FLUSH_CACHE: Final = 0xE7
_SET_FEATURES: Final = 0xEF
_SET_TRANSFER_MODE: Final = 0x03
_PIO_MODES: Final = (0x00, 0x01, 0x08, 0x09, 0x0A, 0x0B, 0x0C)
_POWER: Final = frozenset({0x94, 0x95, 0x99, 0xE0, 0xE1, 0xE6, *CHECK_POWER_MODE})

_UNSUPPORTED: Final = 0x03  # features of PACKET: DMA, overlap
_MOST_BYTES: Final = 0xFFFE

_REQUEST_SENSE: Final = 0x03
_AS_TIME: Final = 0x02
_POLLED: Final = 0x01
_START: Final = 0x01
_LOAD_OR_EJECT: Final = 0x02
_POWER_CONDITION: Final = 0xF0
_USER_DATA: Final = 0x10


class CdDrive(Drive):
    """See the module."""

    __slots__ = (
        *("_has_packet", "_is_locked", "_is_open", "_left"),
        *("_offset", "_sectors", "_sense", "_serial"),
    )

    signature = PACKET_SIGNATURE
    phases = frozenset({IDLE, SENDING, TAKING, FETCHING, READING, RESETTING})
    more = Struct("<5BQQ")

    def __init__(self, unit: int, sectors: int, serial: bytes) -> None:
        self._sectors = min(sectors, MOST_SECTORS)
        self._serial = serial
        super().__init__(unit)

    def power_on(self) -> None:
        """See Drive."""
        super().power_on()
        self._sense = replies.NO_SENSE
        self._is_open = False
        self._is_locked = False

    def _rest(self, status: int) -> None:
        super()._rest(status)
        self._has_packet = False  # whether the command under way is PACKET
        self._offset = self._left = 0  # bytes of the medium that the command still reads

    # --- ATA commands -----------------------------------------------------------------------------------

    def command(self, code: int) -> None:
        """See Drive."""
        if code == DEVICE_RESET:
            self._device_reset()
            return
        if self.power == SLEEPING:
            return
        self.task.error = 0
        if code == PACKET:
            self._take_packet()
        elif code == _IDENTIFY_PACKET_DEVICE:
            self.send(identify_cd(self._serial), IDENTIFY_SIZE)
        elif code in (*_READ_SECTORS, _IDENTIFY_DEVICE):
            self.sign()
            self.fail(ABRT)
        elif code in _POWER:
            self.set_power(code)
        elif code == _FLUSH_CACHE or (code == _SET_FEATURES and self._knows_feature()):
            self.done()
        else:
            self.fail(ABRT)

    def _knows_feature(self) -> bool:
        task = self.task
        return task.register(FEATURES) == _SET_TRANSFER_MODE and task.register(COUNT) in _PIO_MODES

    def _device_reset(self) -> None:
        slave = self.task.device & DEV
        self.diagnose()
        self.task.device = ALWAYS | slave

    # --- Packets ----------------------------------------------------------------------------------------

    def _take_packet(self) -> None:
        if self.task.register(FEATURES) & _UNSUPPORTED:
            self.fail(ABRT)
            return
        self._enter(TAKING)
        self._has_packet = True
        self.task.set_register(COUNT, COMMAND_PACKET)

    def taken(self, packet: bytes) -> None:
        """See Drive."""
        self.buffer = b""
        code = packet[0]
        if code != _REQUEST_SENSE:
            self._sense = replies.NO_SENSE
        if code in _OF_THE_MEDIUM:
            if self._is_open:
                self._refuse(replies.MEDIUM_NOT_PRESENT)
            else:
                _OF_THE_MEDIUM[code](self, packet)
        elif code in _OF_THE_DRIVE:
            _OF_THE_DRIVE[code](self, packet)
        else:
            self._refuse(replies.INVALID_COMMAND)

    def _end(self, status: int) -> None:
        """The last interrupt of a packet command."""
        self._rest(status)
        self._set_reason(COMMAND_PACKET | TO_HOST)
        self.interrupt = True

    def _set_reason(self, reason: int) -> None:
        kept = self.task.register(COUNT) & ~(COMMAND_PACKET | TO_HOST)
        self.task.set_register(COUNT, kept | reason)

    def _succeed(self, packet: bytes) -> None:
        self._end(READY)

    def _refuse(self, sense: tuple[int, int]) -> None:
        self._sense = sense
        self._end(DRDY | ERR)
        self.task.error = sense[0] << 4

    # --- Data to the host -------------------------------------------------------------------------------

    def _reply(self, data: bytes, allocation: int) -> None:
        """Send as much of `data` as the host has room for."""
        self.buffer = data[:allocation]
        self._next_block(len(self.buffer))

    def _next_block(self, left: int) -> None:
        """Begin the next DRQ block, with `left` bytes to go, or end the command."""
        if left == 0:
            self._end(READY)
            return
        size = min(self.task.byte_count, _MOST_BYTES)
        size = left if left <= size else size & ~1
        if size == 0:
            self.fail(ABRT)
            return
        self.task.byte_count = size
        if self._left:
            self.open_window(FETCHING, self._offset, size, TO_GUEST)
        else:
            self.end = self.position + size
            self._enter(SENDING)
            self._offer()

    def _offer(self) -> None:
        """The host can read a block."""
        self._set_reason(TO_HOST)
        self.interrupt = True

    def sent(self) -> None:
        """See Drive."""
        if self._has_packet:
            self._next_block(len(self.buffer) - self.end)
        else:
            super().sent()

    def move_on(self) -> None:
        """See Drive."""
        if self.phase == FETCHING:
            self._enter(READING)
            self._offer()
        else:
            size = self.task.byte_count
            self._offset += size
            self._left -= size
            self._next_block(self._left)

    def failed(self, status: int) -> None:
        """See Drive."""
        self._refuse(replies.OUT_OF_RANGE if status == BEYOND_END else replies.UNRECOVERED_READ_ERROR)

    def _read(self, lba: int, count: int) -> None:
        if count and lba + count > self._sectors:
            self._refuse(replies.OUT_OF_RANGE)
            return
        self._offset, self._left = lba * CD_SECTOR_SIZE, count * CD_SECTOR_SIZE
        self._next_block(self._left)

    # --- Packet commands --------------------------------------------------------------------------------

    def _read_10(self, packet: bytes) -> None:
        self._read(_number(packet, 2, 4), _number(packet, 7, 2))

    def _read_12(self, packet: bytes) -> None:
        self._read(_number(packet, 2, 4), _number(packet, 6, 4))

    def _read_cd(self, packet: bytes) -> None:
        """READ CD, of user data only: headers and error correction are not in an image."""
        parts = packet[9] & 0xF8
        lba, count = _number(packet, 2, 4), _number(packet, 6, 3)
        if parts == _USER_DATA or not count or lba + count > self._sectors:
            self._read(lba, count)
        elif parts == 0:
            self._end(READY)
        else:
            self._refuse(replies.INVALID_FIELD)

    def _seek(self, packet: bytes) -> None:
        if _number(packet, 2, 4) >= self._sectors:
            self._refuse(replies.OUT_OF_RANGE)
        else:
            self._end(READY)

    def _read_capacity(self, packet: bytes) -> None:
        self._reply(replies.capacity(self._sectors), 8)

    def _read_toc(self, packet: bytes) -> None:
        as_time = bool(packet[1] & _AS_TIME)
        form = packet[2] & 0x0F or packet[9] >> 6  # where MMC and SFF-8020i have it
        data: bytes | None = None
        if form == 0:
            data = replies.toc(self._sectors, as_time, packet[6])
        elif form == 1:
            data = replies.session(as_time)
        elif form == 2:
            data = replies.raw_toc(self._sectors, as_time)
        self._reply_if_valid(data, _number(packet, 7, 2))

    def _reply_if_valid(self, data: bytes | None, allocation: int) -> None:
        if data is None:
            self._refuse(replies.INVALID_FIELD)
        else:
            self._reply(data, allocation)

    def _read_disc_information(self, packet: bytes) -> None:
        self._reply(replies.disc_information(), _number(packet, 7, 2))

    def _read_sub_channel(self, packet: bytes) -> None:
        wants_data = bool(packet[2] & 0x40)
        if wants_data and packet[3] != 1:
            self._refuse(replies.INVALID_FIELD)
            return
        self._reply(replies.sub_channel(bool(packet[1] & _AS_TIME), wants_data), _number(packet, 7, 2))

    def _request_sense(self, packet: bytes) -> None:
        data = replies.sense(*self._sense)
        self._sense = replies.NO_SENSE
        self._reply(data, packet[4])

    def _inquiry(self, packet: bytes) -> None:
        self._reply_if_valid(None if packet[1] & 1 else replies.inquiry(), packet[4])

    def _start_stop(self, packet: bytes) -> None:
        how = packet[4]
        if how & _LOAD_OR_EJECT and not how & _POWER_CONDITION:
            if not how & _START and not self._is_open and self._is_locked:
                self._refuse(replies.REMOVAL_PREVENTED)
                return
            self._is_open = not how & _START
        self._end(READY)

    def _prevent_removal(self, packet: bytes) -> None:
        self._is_locked = bool(packet[4] & 1)
        self._end(READY)

    def _get_configuration(self, packet: bytes) -> None:
        data = replies.configuration(self._sectors, self._is_open, _number(packet, 2, 2))
        self._reply_if_valid(data if packet[1] & 3 < 3 else None, _number(packet, 7, 2))

    def _get_events(self, packet: bytes) -> None:
        data = replies.events(packet[4], self._is_open)
        self._reply_if_valid(data if packet[1] & _POLLED else None, _number(packet, 7, 2))

    def _mechanism_status(self, packet: bytes) -> None:
        self._reply(replies.mechanism(), _number(packet, 8, 2))

    def _mode_sense_6(self, packet: bytes) -> None:
        self._mode_sense(packet[2], packet[4], is_long=False)

    def _mode_sense_10(self, packet: bytes) -> None:
        self._mode_sense(packet[2], _number(packet, 7, 2), is_long=True)

    def _mode_sense(self, page: int, allocation: int, is_long: bool) -> None:
        values = page >> 6
        pages = replies.mode_pages(page & replies.ALL_PAGES, self._is_locked)
        if values == replies.SAVED_VALUES:
            self._refuse(replies.SAVING_NOT_SUPPORTED)
        elif pages is None or values != replies.CURRENT_VALUES:
            self._refuse(replies.INVALID_FIELD)
        else:
            self._reply(replies.mode_sense(pages, is_long, self._is_open), allocation)

    # --- Snapshots --------------------------------------------------------------------------------------

    def pack_more(self) -> tuple[int, ...]:
        """See Drive."""
        flags = int(self._is_open), int(self._is_locked), int(self._has_packet)
        return *self._sense, *flags, self._offset, self._left

    def unpack_more(self, *values: int) -> None:
        """See Drive."""
        key, code, is_open, is_locked, has_packet, offset, left = values
        if key > replies.MOST_SENSE_KEY or is_open > 1 or is_locked > 1:
            raise SnapshotError(
                f"a CD drive with sense {key:#x} {code:#x}, open {is_open}, locked {is_locked}"
            )
        if self.phase == SENDING and not has_packet:
            is_right = self.end == len(self.buffer) == IDENTIFY_SIZE
        else:
            is_right = has_packet == (self.phase in (SENDING, TAKING, FETCHING, READING))
        if not is_right:
            raise SnapshotError(f"a packet {has_packet} in phase {self.phase}")
        if self.phase in (FETCHING, READING):
            good = 0 < self.task.byte_count <= left and offset + left <= self._sectors * CD_SECTOR_SIZE
        else:
            good = offset == left == 0
        if not good:
            raise SnapshotError(f"{left} bytes from {offset} on in phase {self.phase}")
        self._sense, self._is_open, self._is_locked = (key, code), bool(is_open), bool(is_locked)
        self._has_packet, self._offset, self._left = bool(has_packet), offset, left


def _number(packet: bytes, place: int, size: int) -> int:
    return int.from_bytes(packet[place : place + size], "big")


_OF_THE_MEDIUM: Final[Mapping[int, Callable[[CdDrive, bytes], None]]] = {
    0x00: CdDrive._succeed,  # TEST UNIT READY
    0x25: CdDrive._read_capacity,
    0x28: CdDrive._read_10,
    0x2B: CdDrive._seek,
    0x42: CdDrive._read_sub_channel,
    0x43: CdDrive._read_toc,
    0x51: CdDrive._read_disc_information,
    0xA8: CdDrive._read_12,
    0xBE: CdDrive._read_cd,
}
"""Packet commands that want a medium in the drive."""

_OF_THE_DRIVE: Final[Mapping[int, Callable[[CdDrive, bytes], None]]] = {
    _REQUEST_SENSE: CdDrive._request_sense,
    0x12: CdDrive._inquiry,
    0x1A: CdDrive._mode_sense_6,
    0x1B: CdDrive._start_stop,
    0x1E: CdDrive._prevent_removal,
    0x46: CdDrive._get_configuration,
    0x4A: CdDrive._get_events,
    0x5A: CdDrive._mode_sense_10,
    0xBB: CdDrive._succeed,  # SET CD SPEED
    0xBD: CdDrive._mechanism_status,
}
"""Packet commands that need none."""
