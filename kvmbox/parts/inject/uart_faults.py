"""Faults of a UART (PC16550D): what its line status register (8.4) shows that the model does not.

A received byte may be hit when the guest reads LSR with DR, once for each byte: at the first read of LSR
since the last read of RBR. While DLAB is set, nothing is lost, because the data cannot be read then.
A byte behind a lost one is looked at when LSR is read again.

- Overrun: the byte is read from RBR and lost, and LSR shows OE once.
- Parity, framing, break: LSR shows PE, FE or BI once. A break reads as zero (8.4, bit 4).
- Busy: LSR shows neither THRE nor TEMT (8.4, bits 5 and 6). The model transmits all the same.

Bit 7 and the line status interrupt (8.6) stay as the model has them.
"""

from __future__ import annotations

from typing import Final

from kvmbox.devices.uart import registers as reg
from kvmbox.parts.inject.device_faults import DeviceFaults
from kvmbox.parts.inject.fault_table import BREAK, BUSY, FRAMING, OVERRUN, PARITY
from kvmbox.remote.bus.routing import BusDevice

OF_A_BYTE: Final = ((PARITY, reg.LSR_PE), (FRAMING, reg.LSR_FE), (BREAK, reg.LSR_BI))
"""The faults of a byte that is not lost, and what LSR shows then."""


class FaultyUart:
    """`device`, a UART, with the `faults` of a UART."""

    def __init__(self, device: BusDevice, faults: DeviceFaults) -> None:
        self.natural_sizes = device.natural_sizes
        self.write = device.write
        self._device = device
        self._faults = faults
        self._is_new = True  # whether LSR was not read since RBR
        self._is_break = False  # whether the next byte reads as zero

    def read(self, offset: int, size: int) -> int:
        """What the guest reads."""
        value = self._device.read(offset, size)
        if offset == reg.LSR:
            return self._line_status(value)
        if offset == reg.RBR:
            self._is_new = True
            if self._is_break and not self._shows_divisor:
                self._is_break, value = False, 0
        return value

    def _line_status(self, value: int) -> int:
        faults = self._faults
        if not value & reg.LSR_DR:
            self._is_new = True
        elif self._is_new:
            self._is_new = False
            if faults.has((OVERRUN,)) and not self._shows_divisor and faults.happens(OVERRUN):
                self._device.read(reg.RBR, 1)
                self._is_new = True
                value = value & reg.LSR_ERRORS | self._device.read(reg.LSR, 1) | reg.LSR_OE
            else:
                for fault, bit in OF_A_BYTE:
                    if faults.happens(fault):
                        value |= bit
                        self._is_break = self._is_break or bit == reg.LSR_BI
        if faults.lasts(BUSY):
            value &= ~reg.LSR_TRANSMITTER
        return value

    @property
    def _shows_divisor(self) -> bool:
        """Whether the registers of the data are those of the divisor now (8.1, bit 7)."""
        return bool(self._device.read(reg.LCR, 1) & reg.LCR_DLAB)
