"""What a device answers whose pin runs from power-on, while nobody uses it: `FreeRunning`. Pure.

Until the guest uses the device, the behaviour of such a pin is a function of the times of RESET and ADVANCE,
and of what firmware writes. So no process is needed for it. The effects are those of the model, to the bit.
From a RESET on, the pin stays low until its wave changes for the first time. The writes of firmware stop the
wave, and begin another one, which the pin follows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.contract.model import NANOSECONDS, Effect, IrqLine, RisesAt
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_reply

_PIN: Final = 0


class FreeRunningPin:
    """The pin of the one device of a process that has such a pin."""

    def __init__(self, devices: Sequence[DeviceSpec]) -> None:
        ((self._index, self._runs),) = [
            (index, one.runs) for index, one in enumerate(devices) if one.runs is not None
        ]
        self._high = self._runs.high  # 0: it stands
        self._now = self._began = self._changes = self._level = self._written = 0
        self._announced = self._time_of(2)
        self._effects: list[tuple[int, Effect]] = []

    def knows(self, sent: bytes) -> bool:
        """Whether that WRITE_RUN is what firmware writes next."""
        asked = protocol.decode_request(sent)
        firmware = self._runs.firmware[self._written : self._written + 1]
        return asked.device == self._index and firmware == ((asked.offset, asked.payload),)

    def answer(self, sent: bytes) -> bytes:
        """The reply to RESET, ADVANCE, or what firmware writes next."""
        asked = protocol.decode_request(sent)
        self._pass_time(asked.now)
        if asked.kind == protocol.RESET:
            self._set(0)
            self._begin(self._runs.high)
            self._written = 0
        elif asked.kind == protocol.WRITE_RUN:
            self._written += 1
            is_last = self._written == len(self._runs.firmware)
            if is_last or self._changes:
                self._set(1)
            self._begin(self._runs.high_after_firmware if is_last else 0)
        effects, self._effects = self._effects, []
        return encode_reply(asked, self._time_of(self._changes + 1), 0, effects)

    def _pass_time(self, now: int) -> None:
        runs, before, self._now = self._runs, self._changes, max(now, self._now)
        if not self._high:
            return
        periods, pulse = divmod((self._now - self._began) * runs.hertz // NANOSECONDS, runs.period)
        changes = self._changes = 2 * periods + (pulse >= self._high)
        if changes == before:
            return
        self._set(1 - before % 2)
        if rises := changes // 2 - before // 2:
            self._set(0)
            self._level = 1
            self._add(IrqLine(_PIN, 1, rises - 1))
        self._set(1 - changes % 2)
        self._announce()

    def _begin(self, high: int) -> None:
        self._high, self._began, self._changes = high, self._now, 0
        self._announce()

    def _announce(self) -> None:
        at = self._time_of((self._changes | 1) + 1)
        if at != self._announced:
            self._announced = at
            self._add(RisesAt(_PIN, at))

    def _time_of(self, change: int) -> int:
        """When the wave changes for that time, from 1 on: with an even number it rises."""
        if not self._high:
            return protocol.NO_DEADLINE
        pulses = change // 2 * self._runs.period + change % 2 * self._high
        return self._began - (-pulses * NANOSECONDS // self._runs.hertz)

    def _set(self, level: int) -> None:
        if level != self._level:
            self._level = level
            self._add(IrqLine(_PIN, level))

    def _add(self, effect: Effect) -> None:
        self._effects.append((self._index, effect))
