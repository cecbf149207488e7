"""A clock that jumps (MC146818A): somebody else has set it, as firmware or a hypervisor may.

The VMM sets the clock as a program would ("Programming considerations" of the data sheet): it sets SET in
register B, writes the time and calendar bytes, and puts register B back, which SET had cleared UIE of. The
index that the guest has written is written again. These are ordinary requests: the model, its alarm and its
recording need to know nothing of faults.

The jump comes right before the first access of the guest that is due for it. Nobody can see a clock between
two accesses. One lock keeps other CPUs out meanwhile.
"""

from __future__ import annotations

import threading
from typing import Final

from kvmbox.devices.rtc import registers as reg
from kvmbox.devices.rtc.calendar import SECONDS_PER_DAY, weekday_from_days
from kvmbox.devices.rtc.time_bytes import decode_day_of_week, decode_time, encode_time
from kvmbox.parts.inject.device_faults import DeviceFaults
from kvmbox.parts.inject.fault_table import JUMP
from kvmbox.remote.bus.routing import BusDevice

INDEX: Final = 0
DATA: Final = 1
"""The two registers of the device: which register of the chip is meant, and that register."""

TIME: Final = (
    reg.SECONDS,
    reg.MINUTES,
    reg.HOURS,
    reg.DAY_OF_WEEK,
    reg.DATE_OF_MONTH,
    reg.MONTH,
    reg.YEAR,
    reg.CENTURY,
)


class FaultyRtc:
    """`device`, an RTC, that jumps when its `faults` say so."""

    def __init__(self, device: BusDevice, faults: DeviceFaults) -> None:
        self.natural_sizes = device.natural_sizes
        self._device = device
        self._faults = faults
        self._turn = threading.Lock()
        self._index = 0

    def read(self, offset: int, size: int) -> int:
        """What the guest reads."""
        with self._turn:
            self._jump_if_due()
            return self._device.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """What the guest writes."""
        with self._turn:
            self._jump_if_due()
            if offset == INDEX:
                self._index = value
            self._device.write(offset, size, value)

    def _jump_if_due(self) -> None:
        wanted = self._faults.wanted(JUMP)
        if wanted is not None and self._faults.once(JUMP):
            assert wanted.seconds is not None
            self._jump(wanted.seconds)
            self._device.write(INDEX, 1, self._index)

    def _jump(self, seconds: int) -> None:
        register_b = self._get(reg.REGISTER_B)
        self._set(reg.REGISTER_B, register_b | reg.B_SET)
        # All that the two functions look at. Every byte has a meaning, whatever the guest has written there.
        registers = bytearray(128)
        for register in TIME:
            registers[register] = self._get(register)
        registers[reg.REGISTER_B] = register_b
        before = decode_time(registers)
        shift = decode_day_of_week(registers) - weekday_from_days(before // SECONDS_PER_DAY)
        encode_time(registers, before + seconds, shift)
        for register in TIME:
            self._set(register, registers[register])
        self._set(reg.REGISTER_B, register_b)

    def _get(self, register: int) -> int:
        self._device.write(INDEX, 1, register)
        return self._device.read(DATA, 1)

    def _set(self, register: int, value: int) -> None:
        self._device.write(INDEX, 1, register)
        self._device.write(DATA, 1, value)
