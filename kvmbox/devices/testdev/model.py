"""kvm-unit-tests' test device (QEMU, hw/misc/pc-testdev.c): interrupt lines, scratch registers and memory.

Registers by `offset`, as the board maps them:

- 0 to 3: a scratch register of 4 bytes; 8 to 11 are the same register once more.
- 4 to 7: QEMU takes the guest page whose address is written here out of its mapping and back, so that KVM has
  to map it anew. No guest can see that, so the write does nothing here. Reads give 0.
- 16 to 39: a byte written to 16 + n sets the interrupt line n: high, if it is not 0. Reads give 0.
- 0x10000 to 0x1FFFF: 64 KiB of memory, which the VMM does not map: each access is one to this device.
"""

from __future__ import annotations

from kvmbox.base.layout import TESTDEV_IRQ_COUNT, TESTDEV_MEMORY_SIZE
from kvmbox.contract.model import IrqLine, TimelessModel
from kvmbox.contract.port_model import check_snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SCRATCH: Final = 0
FLUSH: Final = 4
SCRATCH_AGAIN: Final = 8
PORTS_END: Final = 12
LINES: Final = 16
LINES_END: Final = LINES + TESTDEV_IRQ_COUNT
MEMORY: Final = 0x1_0000
MEMORY_END: Final = MEMORY + TESTDEV_MEMORY_SIZE

MAGIC: Final = b"TDV\x01"
FIXED: Final = len(MAGIC) + 4 + 3  # the scratch register, a bit for each line
SNAPSHOT_SIZE: Final = FIXED + TESTDEV_MEMORY_SIZE


class PcTestdev(TimelessModel):
    """See the module.

    >>> model = PcTestdev()
    >>> model.write(0, LINES + 9, 1, 1)
    >>> model.take_effects()
    [IrqLine(pin=9, level=1, coalesced=0)]
    """

    def __init__(self) -> None:
        super().__init__()
        self._scratch = bytearray(4)
        self._levels = 0  # bit n: line n is high
        self._memory = bytearray(TESTDEV_MEMORY_SIZE)

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel."""
        if offset >= MEMORY and offset + size <= MEMORY_END:
            return int.from_bytes(self._memory[offset - MEMORY : offset - MEMORY + size], "little")
        if size != 1:
            return sum(self.read(now, offset + index, 1) << 8 * index for index in range(size))
        if SCRATCH <= offset < FLUSH or SCRATCH_AGAIN <= offset < PORTS_END:
            return self._scratch[offset & 3]
        return 0 if FLUSH <= offset < SCRATCH_AGAIN or LINES <= offset < LINES_END else 0xFF

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""
        if offset >= MEMORY and offset + size <= MEMORY_END:
            data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
            self._memory[offset - MEMORY : offset - MEMORY + size] = data
        elif size != 1:
            for index in range(size):
                self.write(now, offset + index, 1, value >> 8 * index & 0xFF)
        elif SCRATCH <= offset < FLUSH or SCRATCH_AGAIN <= offset < PORTS_END:
            self._scratch[offset & 3] = value & 0xFF
        elif LINES <= offset < LINES_END:
            self._set_line(offset - LINES, int(value & 0xFF != 0))

    def _set_line(self, line: int, level: int) -> None:
        if self._levels >> line & 1 != level:
            self._levels ^= 1 << line
            self._effects.append(IrqLine(line, level))

    def reset(self, now: int) -> None:
        """See DeviceModel. All is as at power-on (QEMU's device has no reset and keeps it all)."""
        for line in range(TESTDEV_IRQ_COUNT):
            self._set_line(line, 0)
        self._scratch[:] = bytes(4)
        self._memory[:] = bytes(TESTDEV_MEMORY_SIZE)

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return MAGIC + self._scratch + self._levels.to_bytes(3, "little") + self._memory

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        check_snapshot(state, MAGIC, SNAPSHOT_SIZE)
        start = len(MAGIC)
        self._scratch[:] = state[start : start + 4]
        self._levels = int.from_bytes(state[start + 4 : FIXED], "little")
        self._memory[:] = state[FIXED:]
        self._effects = []
