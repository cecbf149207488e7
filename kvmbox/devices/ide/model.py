"""An IDE channel: the registers of two drives behind nine ports, their one interrupt line, and resets.

Theory of operation ------------------- Both drives take what the host writes to the task file; DEV in the
device register selects the one that answers (ATA/ATAPI-6, 5.2 and 7). Offsets 0 to 7 are the command block,
offset 8 is the alternate status and the device control register:

    read   data  error     count  LBA low  mid  high  device  status   | alternate status
    write  data  features  count  LBA low  mid  high  device  command  | device control

While the selected drive has BSY or DRQ, writes are dropped, but for device control, data, and DEVICE RESET
to a packet device. The interrupt line has the pending interrupt of the selected drive, unless nIEN is set.
A read of the status register or a new command takes it away.

The data register has 2 or 4 bytes. Only data of the drives themselves are here (`drive.py`): what the
host reads and writes while a window is open is between it and the VMM. A drive that is not there reads as
status 0.
"""

from __future__ import annotations

from struct import Struct, error

from kvmbox.contract.bulk_data import QUIET_START, RISES, Window
from kvmbox.contract.model import NANOSECONDS, IrqLine, SnapshotError, steady_for
from kvmbox.contract.port_model import PortModel
from kvmbox.devices.ide.cd_drive import DEVICE_RESET, CdDrive
from kvmbox.devices.ide.drive import IDLE, RESETTING, Drive
from kvmbox.devices.ide.hard_disk import Disk
from kvmbox.devices.ide.registers import (
    ALWAYS,
    BSY,
    COMMAND,
    CONTROL,
    CONTROL_BITS,
    DATA,
    DEV,
    DEVICE,
    DRQ,
    ERROR,
    HOB,
    NIEN,
    REGISTER_COUNT,
    SRST,
    STATUS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PARAMETERS: Final = Struct("<BQ20s")
"""A drive: its kind, its sectors (of 512 bytes, or of 2048 of a CD), its serial number in ASCII."""

NO_DRIVE: Final = 0
DISK: Final = 1
CD: Final = 2
READ_ONLY: Final = 0x80
"""A bit of the kind: the disk refuses to be written. A CD always does."""

_DIAGNOSE: Final = 0x90
"""EXECUTE DEVICE DIAGNOSTIC, which both drives obey."""

_SNAPSHOT: Final = Struct("<4sBHH")  # device control, the bytes of each drive
_MAGIC: Final = b"IDE\x01"


class IdeChannel(PortModel):
    """See the module.

    >>> channel = IdeChannel(master=PARAMETERS.pack(DISK, 8, b"1"))
    >>> hex(channel.read(0, STATUS, 1))
    '0x50'
    >>> channel.write(0, DEVICE, 1, 0x40)  # LBA; one sector, from 0 on
    >>> channel.write(0, 2, 1, 1)
    >>> channel.write(0, 3, 1, 0)
    >>> channel.write(0, COMMAND, 1, 0x20)  # READ SECTORS
    >>> channel.take_effects()
    [Window(tag=2, resource=0, offset=0, size=512, to_guest=15)]
    >>> channel.complete(0, 2, 0)  # DONE
    >>> channel.take_effects(), hex(channel.read(0, CONTROL, 1))
    ([IrqLine(pin=0, level=1, coalesced=0)], '0x58')
    """

    __slots__ = ("_control", "_drives", "_line", "_parameters", "_selected")

    port_count = REGISTER_COUNT

    def __init__(self, *, master: bytes = b"", slave: bytes = b"") -> None:
        """Each drive is `PARAMETERS`, or nothing. ValueError if it is something else."""
        super().__init__()
        self._parameters = (master, slave)
        self._drives = self._make_drives()
        self._selected = self._drives[0]
        self._control = 0
        self._line = 0

    def _make_drives(self) -> tuple[Drive, Drive]:
        master, slave = self._parameters
        return _make_drive(0, master), _make_drive(1, slave)

    def _settle(self) -> None:
        """Take over what the drives ask for, and which one is selected, and drive the interrupt line."""
        master, slave = self._drives
        for drive in self._drives:
            for effect in drive.asked:
                if isinstance(effect, Window) and effect.to_guest & QUIET_START and not self._control & NIEN:
                    effect.to_guest |= RISES
                self._effects.append(effect)
            drive.asked.clear()
        self._selected = slave if master.task.device & DEV else master
        line = int(self._selected.interrupt and not self._control & NIEN)
        if line != self._line:
            self._line = line
            self._effects.append(IrqLine(0, line))

    # --- The guest --------------------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel."""
        if offset == DATA and size in (2, 4):
            value = self._selected.read_data(size)
            self._settle()
            return value
        return super().read(now, offset, size)

    def steady(self, offset: int, size: int, value: int) -> int:
        """See SteadyModel. All registers stay but data, whose bytes are read one after the other: a read of
        the status that takes an interrupt away has an effect, and what a drive waits for comes as a request.
        """
        return steady_for(NANOSECONDS) if size == 1 and offset != DATA else 0

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""
        if offset == DATA and size in (2, 4):
            self._selected.write_data(size, value & (1 << 8 * size) - 1)
            self._settle()
        else:
            super().write(now, offset, size, value)

    def _read_byte(self, offset: int) -> int:
        drive = self._selected
        task = drive.task
        if offset == STATUS:
            drive.interrupt = False
            self._settle()
        if offset in (STATUS, CONTROL):
            return task.status
        if offset == DEVICE:
            return task.device
        if offset == ERROR:
            return task.error
        if offset == DATA:
            return 0xFF  # it has no bytes
        return (task.previous if self._control & HOB else task.recent)[offset - ERROR]

    def _write_byte(self, offset: int, value: int) -> None:
        if offset == CONTROL:
            self._write_control(value)
        elif offset == COMMAND:
            self._command(value)
        elif offset != DATA and not self._selected.task.status & (BSY | DRQ):
            self._control &= ~HOB
            for drive in self._drives:
                if offset == DEVICE:
                    drive.task.device = value | ALWAYS
                else:
                    drive.task.write(offset, value)
        if offset >= DEVICE:
            self._settle()  # the other registers change nothing else

    def _command(self, code: int) -> None:
        drive = self._selected
        if self._control & SRST:
            return  # both drives are held, also by a command to a place without one
        if drive.task.status & (BSY | DRQ) and not (code == DEVICE_RESET and isinstance(drive, CdDrive)):
            return
        self._control &= ~HOB
        drive.interrupt = False
        self._settle()  # the line falls, and may rise again for this command
        if code == _DIAGNOSE:
            self._diagnose()
            self._drives[0].interrupt = self._drives[0].is_present
        else:
            drive.command(code)

    def _write_control(self, value: int) -> None:
        changed = self._control ^ value
        self._control = value & CONTROL_BITS
        if changed & SRST and value & SRST:
            for drive in self._drives:
                drive.hold()
        elif changed & SRST:
            self._diagnose()

    def _diagnose(self) -> None:
        for drive in self._drives:
            drive.diagnose()

    # --- The VMM ----------------------------------------------------------------------------------------

    def memory(self, now: int, tag: int, data: bytes | None) -> None:
        """See MemoryModel. This model never asks for memory."""

    def complete(self, now: int, tag: int, status: int) -> None:
        """See MemoryModel."""
        for drive in self._drives:
            drive.complete(tag, status)
        self._settle()

    def reset(self, now: int) -> None:
        """See DeviceModel. The VMM has dropped the window."""
        for drive in self._drives:
            drive.power_on()
        self._control = 0
        self._settle()

    # --- Snapshots --------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        states = [drive.snapshot() for drive in self._drives]
        return _SNAPSHOT.pack(_MAGIC, self._control, *map(len, states)) + b"".join(states)

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        if len(state) < _SNAPSHOT.size or not state.startswith(_MAGIC):
            raise SnapshotError("no snapshot of an IDE channel of this version")
        _, control, *sizes = _SNAPSHOT.unpack_from(state)
        if len(state) != _SNAPSHOT.size + sum(sizes) or control & ~CONTROL_BITS:
            raise SnapshotError(f"an IDE channel of {len(state)} bytes, control {control:#x}")
        drives = self._make_drives()
        first = _SNAPSHOT.size + sizes[0]
        drives[0].restore(state[_SNAPSHOT.size : first])
        drives[1].restore(state[first:])
        _check_channel(drives, control)
        self._drives, self._control = drives, control
        self._settle()
        self._effects = []


def _make_drive(unit: int, parameters: bytes) -> Drive:
    if not parameters:
        return Drive(unit)
    try:
        kind, sectors, serial = PARAMETERS.unpack(parameters)
    except error as wrong:
        raise ValueError(f"parameters of {len(parameters)} bytes for an IDE drive") from wrong
    if kind & ~READ_ONLY == DISK:
        return Disk(unit, sectors, serial, not kind & READ_ONLY)
    if kind & ~READ_ONLY == CD:
        return CdDrive(unit, sectors, serial)
    if kind == NO_DRIVE:
        return Drive(unit)
    raise ValueError(f"an IDE drive of kind {kind}")


def _check_channel(drives: tuple[Drive, Drive], control: int) -> None:
    """Raise SnapshotError unless two drives may be in these states at the same time."""
    devices = [drive.task.device for drive in drives]
    if any(device & ALWAYS != ALWAYS for device in devices) or (devices[0] ^ devices[1]) & DEV:
        raise SnapshotError(f"device registers {devices[0]:#x} and {devices[1]:#x}")
    held = {drive.phase == RESETTING for drive in drives if drive.is_present}
    if held - {bool(control & SRST)}:
        raise SnapshotError(f"device control {control:#x}, and a drive thinks otherwise")
    selected = drives[bool(devices[0] & DEV)]
    if any(drive.phase not in (IDLE, RESETTING) for drive in drives if drive is not selected):
        raise SnapshotError("a drive that is not selected has a command under way")
