"""Suspension to memory, ACPI's S3: the machine sleeps until the clock's alarm, and goes on where the OS said.

The guest asks for it at the PM1a control register (`devices.acpi.model`). Its vCPUs end, and its virtual
machine is closed: in S3 processors and interrupt controllers lose their state. Memory and guest time go on,
and so do the devices, of which the clock may wake the machine (ACPI 6.5, 7.4.2.3 and 4.8.3.1). At the wake-up
all devices are reset, but for what a battery keeps, and the device that asked is told the reason. Then the
first processor starts in real mode at the waking vector, which the OS has left in the FACS (5.2.10), as
firmware would do it.

The clock wakes the machine by the level of its interrupt line: an alarm that came before the guest was asleep
is not lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvmbox.base import layout
from kvmbox.base.judge import Judge
from kvmbox.base.memory import GuestMemory
from kvmbox.base.outcome import GUEST_CRASHED, Outcome
from kvmbox.base.value_classes import Value
from kvmbox.boot.plan import BootPlan
from kvmbox.boot.real_mode.entry_registers import waking_state
from kvmbox.contract.device_spec import Irq
from kvmbox.contract.model import WAKE_BY_RTC
from kvmbox.wire import protocol

if TYPE_CHECKING:
    from kvmbox.remote.channel.connection import Channel
    from kvmbox.run.machine.device_set import Devices

_FACS_ALIGNMENT: Final = 64  # 5.2.10
_WAKING_VECTOR: Final = 12  # offset in the FACS
_NO_ALARM_HINT: Final = (
    "set RTC_EN in the PM1 enable register (port 0x602), and AIE in register B of the clock"
)


class Suspension(Value):
    """What the guest asked for: `device`, by name, is told which of `wakes` woke the machine."""

    device: str
    wakes: int


def sleep_until_woken(
    suspension: Suspension, devices: Devices, judge: Judge, sleep: Callable[[Callable[[], bool]], bool]
) -> bool:
    """Sleep. Return whether the machine was woken; otherwise the outcome is decided.

    `sleep` lets time pass until its argument says so (`MainLoop.sleep`).
    """
    clock = _channel_of_line(devices, layout.RTC_IRQ) if suspension.wakes & WAKE_BY_RTC else None

    def woken() -> bool:
        if clock is not None and devices.router.lines[layout.RTC_IRQ].is_asked_for:
            return True
        if clock is None or clock.deadline == protocol.NO_DEADLINE:
            judge.ends(_asleep_for_ever("nothing that could wake it is enabled", _NO_ALARM_HINT))
        return False

    return sleep(woken)


def report_wake_up(suspension: Suspension, devices: Devices) -> None:
    """Tell the device that asked why the machine has been woken. Raises DeviceProcessError."""
    for device_type, index, device in devices.pool.places():
        if device.name == suspension.device:
            devices.pool.channel(device_type).request(
                protocol.RECEIVE, device=index, payload=bytes((WAKE_BY_RTC,)), limit=1
            )


def waking_plan(memory: GuestMemory, before: BootPlan) -> BootPlan | Outcome:
    """How a woken guest goes on, which booted as `before` says; the outcome, if it has not said where."""
    vector = waking_vector(memory)
    if vector is None:
        return _asleep_for_ever("there is no FACS", "leave out --firmware-tables none, and --boot real")
    if not 0 < vector < layout.HIGH_MEMORY_START:
        hint = "write the address of real-mode code to the Firmware_Waking_Vector of the FACS"
        return _asleep_for_ever(f"its waking vector is {vector:#x}", hint)
    return BootPlan(before.format, waking_state(vector), vector)


def waking_vector(memory: GuestMemory) -> int | None:
    """The Firmware_Waking_Vector of the FACS among the firmware's tables; None if there is no FACS."""
    tables = memory.read(layout.FIRMWARE_TABLES, layout.FIRMWARE_TABLES_END - layout.FIRMWARE_TABLES)
    for place in range(0, len(tables), _FACS_ALIGNMENT):
        if tables[place : place + 4] == b"FACS":
            return int.from_bytes(tables[place + _WAKING_VECTOR : place + _WAKING_VECTOR + 4], "little")
    return None


def _channel_of_line(devices: Devices, gsi: int) -> Channel | None:
    """The channel of the device whose own line that is."""
    for device_type, _, device in devices.pool.places():
        if Irq(gsi) in device.grants:
            return devices.pool.channel(device_type)
    return None


def _asleep_for_ever(why: str, hint: str) -> Outcome:
    reason = f"the guest is halted for ever: it suspended to memory (S3), and {why}"
    return Outcome(GUEST_CRASHED, reason, error=True, hint=hint)
