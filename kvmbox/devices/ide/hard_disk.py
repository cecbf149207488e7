"""An ATA disk: commands after ATA/ATAPI-6 (T13/1410D, chapter 8), with addresses as CHS, LBA28 and LBA48.

A read or a write goes block by block: a sector, or with READ MULTIPLE and WRITE MULTIPLE as many as SET
MULTIPLE MODE says. Each block is one window. The registers follow: after each block, the address is that of
the next sector, and the count is what is left.

An interrupt comes with each block that the host can read, and after each block that it has written. A
command that reaches beyond the disk gives IDNF at the first block that does. What the host cannot read is
UNC; what it cannot write or flush is ABRT.

SET FEATURES can disable the write cache: then a write ends with a flush.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.base.layout import SECTOR_SIZE
from kvmbox.contract.bulk_data import QUIET_END, QUIET_START, TO_GUEST
from kvmbox.contract.model import BEYOND_END, SnapshotError
from kvmbox.devices.ide.drive import (
    ACTIVE,
    CHECK_POWER_MODE,
    FETCHING,
    FLUSHING,
    IDLE,
    READING,
    RESETTING,
    SENDING,
    SLEEPING,
    STORING,
    WRITING,
    Drive,
)
from kvmbox.devices.ide.identify import (
    DEFAULT_HEADS,
    DEFAULT_SECTORS,
    IDENTIFY_SIZE,
    MAX_MULTIPLE,
    identify_disk,
)
from kvmbox.devices.ide.registers import ABRT, COUNT, DISK_SIGNATURE, FEATURES, HEAD, IDNF, LBA, READY, UNC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final

MOST_SECTORS: Final = (1 << 48) - 1

# By command: whether it has 48 bits, and whether its blocks are those of SET MULTIPLE MODE.
_READS: Final = {
    0x20: (False, False),
    0x21: (False, False),
    0x24: (True, False),
    0xC4: (False, True),
    0x29: (True, True),
}
_WRITES: Final = {
    0x30: (False, False),
    0x31: (False, False),
    0x34: (True, False),
    0xC5: (False, True),
    0x39: (True, True),
}
_VERIFIES: Final = {0x40: False, 0x41: False, 0x42: True}
_NATIVE_MAX: Final = {0xF8: False, 0x27: True}
_POWER: Final = frozenset({0x94, 0x95, 0x96, 0x97, 0x99, 0xE0, 0xE1, 0xE2, 0xE3, 0xE6, *CHECK_POWER_MODE})

# Features that SET FEATURES knows.
_ENABLE_WRITE_CACHE: Final = 0x02
_SET_TRANSFER_MODE: Final = 0x03
_DISABLE_WRITE_CACHE: Final = 0x82
_NO_EFFECT: Final = (0x55, 0xAA, 0xCC)  # look-ahead off and on; SRST brings defaults back
PIO_MODES: Final = (0x00, 0x01, 0x08, 0x09, 0x0A, 0x0B, 0x0C)

_MOST_COUNT: Final = 1 << 16


class Run:
    """The sectors of a command that are left: `left` from `lba` on, in blocks of `block`."""

    __slots__ = ("block", "lba", "left", "wide")

    def __init__(self, lba: int = 0, left: int = 0, block: int = 0, wide: int = 0) -> None:
        self.lba = lba
        self.left = left
        self.block = block
        self.wide = wide

    @property
    def next_block(self) -> int:
        """How many sectors the next block has."""
        return min(self.block, self.left)


class Disk(Drive):
    """See the module."""

    __slots__ = ("_multiple", "_run", "_sectors", "_serial", "_translation", "_writable", "_write_cache")

    signature = DISK_SIGNATURE
    at_rest = READY
    phases = frozenset({IDLE, SENDING, FETCHING, READING, WRITING, STORING, FLUSHING, RESETTING})
    more = Struct("<BBBBQIBB")

    def __init__(self, unit: int, sectors: int, serial: bytes, writable: bool) -> None:
        self._sectors = min(sectors, MOST_SECTORS)
        self._serial = serial
        self._writable = writable
        super().__init__(unit)

    def power_on(self) -> None:
        """See Drive."""
        super().power_on()
        self._translation = DEFAULT_HEADS, DEFAULT_SECTORS  # heads, sectors of a track
        self._multiple = MAX_MULTIPLE  # 0: no READ MULTIPLE
        self._write_cache = True
        self._run = Run()

    def _rest(self, status: int) -> None:
        super()._rest(status)
        self._run = Run()

    def diagnose(self) -> None:
        """See Drive. Blocks have their default size again; the other settings are kept, as in QEMU."""
        super().diagnose()
        self._multiple = MAX_MULTIPLE

    # --- Addresses --------------------------------------------------------------------------------------

    def _address(self, wide: bool) -> int:
        """The first sector of a command; one beyond the disk if there is none of that name."""
        task = self.task
        if task.device & LBA:
            return task.lba(wide)
        sector, low, high = task.recent[2:]
        heads, per_track = self._translation
        head = task.device & HEAD
        if head >= heads or not 1 <= sector <= per_track:
            return self._sectors
        return ((high << 8 | low) * heads + head) * per_track + sector - 1

    def _set_address(self, lba: int, wide: bool) -> None:
        task = self.task
        if task.device & LBA:
            task.set_lba(lba, wide)
            return
        heads, per_track = self._translation
        track, sector = divmod(lba, per_track)
        cylinder, head = divmod(track, heads)
        task.recent[2:] = sector + 1, cylinder & 0xFF, cylinder >> 8 & 0xFF
        task.device = task.device & ~HEAD | head

    # --- Commands ---------------------------------------------------------------------------------------

    def command(self, code: int) -> None:
        """See Drive. A disk that sleeps wants a reset first (ATA/ATAPI-6, 6.9)."""
        if self.power == SLEEPING:
            return
        self.task.error = 0
        if code in _READS:
            self._begin(*_READS[code])
            self._read_block()
        elif code in _WRITES and self._writable:
            self._begin(*_WRITES[code])
            self._write_block()
        elif code in _VERIFIES:
            wide = _VERIFIES[code]
            self._check(self._address(wide), self.task.count(wide))
        elif code in _NATIVE_MAX:
            self._set_address(self._sectors - 1, _NATIVE_MAX[code])
            self.done()
        elif code in _POWER:
            self.set_power(code)
        elif code in _OTHERS:
            _OTHERS[code](self)
        else:
            self.fail(ABRT)

    def _check(self, lba: int, count: int) -> None:
        """End a command that only looks at sectors."""
        self.power = ACTIVE
        if lba + count > self._sectors:
            self.fail(IDNF)
        else:
            self.done()

    def _seek(self) -> None:
        self._check(self._address(wide=False), 1)

    def _identify(self) -> None:
        data = identify_disk(
            self._sectors, self._serial, self._translation, self._multiple, self._write_cache
        )
        self.send(data, IDENTIFY_SIZE)

    def _set_multiple(self) -> None:
        count = self.task.register(COUNT)
        if count > MAX_MULTIPLE or count & count - 1:
            self.fail(ABRT)
            return
        self._multiple = count
        self.done()

    def _set_translation(self) -> None:
        """INITIALIZE DEVICE PARAMETERS."""
        sectors = self.task.register(COUNT)
        if sectors == 0:
            self.fail(ABRT)
            return
        self._translation = (self.task.device & HEAD) + 1, sectors
        self.done()

    def _set_features(self) -> None:
        feature = self.task.register(FEATURES)
        if feature == _DISABLE_WRITE_CACHE:
            self._write_cache = False
            self.flush()
        elif feature in _NO_EFFECT or (
            feature == _SET_TRANSFER_MODE and self.task.register(COUNT) in PIO_MODES
        ):
            self.done()
        elif feature == _ENABLE_WRITE_CACHE:
            self._write_cache = True
            self.done()
        else:
            self.fail(ABRT)

    # --- Sectors ----------------------------------------------------------------------------------------

    def _begin(self, wide: bool, by_multiple: bool) -> None:
        block = self._multiple if by_multiple else 1
        self._run = Run(self._address(wide), self.task.count(wide), block, wide)
        self.power = ACTIVE

    def _block(self, phase: int) -> None:
        """Open the window of the next block."""
        run = self._run
        if run.block == 0:
            self.fail(ABRT)
        elif run.lba + run.next_block > self._sectors:
            self.fail(IDNF)
        else:
            to_guest = 0
            if phase == FETCHING:
                to_guest = TO_GUEST | QUIET_START | (QUIET_END if run.left == run.next_block else 0)
            self.open_window(phase, run.lba * SECTOR_SIZE, run.next_block * SECTOR_SIZE, to_guest)

    def _read_block(self) -> None:
        self._block(FETCHING)

    def _write_block(self) -> None:
        self._block(WRITING)

    def _count_block(self) -> None:
        """A block has been fetched or stored."""
        run = self._run
        count = run.next_block
        run.lba += count
        run.left -= count
        self._set_address(run.lba, bool(run.wide))
        self.task.set_register(COUNT, run.left)

    def move_on(self) -> None:
        """See Drive."""
        if self.phase == FETCHING:
            self._count_block()
            self._enter(READING)
            self.interrupt = True
        elif self.phase == READING:
            if self._run.left:
                self._read_block()
            else:
                self._rest(READY)
        elif self.phase == WRITING:
            self._enter(STORING)
        elif self.phase == STORING:
            self._count_block()
            self._stored()
        else:
            self.done()

    def _stored(self) -> None:
        if self._run.left:
            self._write_block()
            self.interrupt = True
        elif self._write_cache:
            self.done()
        else:
            self.flush()

    def failed(self, status: int) -> None:
        """See Drive."""
        if status == BEYOND_END:
            self.fail(IDNF)
        else:
            self.fail(UNC if self.phase in (FETCHING, READING) else ABRT)

    # --- Snapshots --------------------------------------------------------------------------------------

    def pack_more(self) -> tuple[int, ...]:
        """See Drive."""
        run = self._run
        heads, per_track = self._translation
        settings = heads, per_track, self._multiple, int(self._write_cache)
        return *settings, run.lba, run.left, run.block, int(run.wide)

    def unpack_more(self, *values: int) -> None:
        """See Drive."""
        heads, per_track, multiple, write_cache, *numbers = values
        run = Run(*numbers)
        if not 1 <= heads <= HEAD + 1 or per_track == 0 or write_cache > 1:
            raise SnapshotError(f"a disk of {heads} heads and {per_track} sectors, cache {write_cache}")
        if multiple > MAX_MULTIPLE or multiple & multiple - 1:
            raise SnapshotError(f"blocks of {multiple} sectors")
        is_full = self.phase in (FETCHING, WRITING, STORING)
        if self.phase in (FETCHING, READING, WRITING, STORING):
            good = (
                run.wide <= 1
                and run.block in (1, multiple)
                and run.block > 0
                and is_full <= run.left <= _MOST_COUNT - (not is_full)
                and run.lba + run.next_block * is_full <= self._sectors
            )
        elif self.phase == FLUSHING:  # of a write, or of a command without sectors
            good = run.left == 0 and run.lba <= self._sectors and run.wide <= 1 and run.block <= MAX_MULTIPLE
        else:
            good = not any(numbers)
        if not good or (self.phase == SENDING and (self.end, len(self.buffer)) != (IDENTIFY_SIZE,) * 2):
            raise SnapshotError(f"{run.left} sectors from {run.lba} on in phase {self.phase}")
        self._translation = heads, per_track
        self._multiple, self._write_cache, self._run = multiple, bool(write_cache), run


_OTHERS: Final[Mapping[int, Callable[[Disk], None]]] = {
    0x10: Disk.done,  # RECALIBRATE
    0x70: Disk._seek,
    0x91: Disk._set_translation,
    0xC6: Disk._set_multiple,
    0xE7: Disk.flush,
    0xEA: Disk.flush,
    0xEC: Disk._identify,
    0xEF: Disk._set_features,
}
