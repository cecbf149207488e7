"""The real-time clock on the board."""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Irq, Parameter


def rtc(base_seconds: int, memory_bytes: int, **more: Parameter) -> DeviceSpec:
    """The real-time clock, and `more` parameters of its model."""
    return DeviceSpec(
        "RTC",
        "rtc",
        "rtc_mc146818",
        ports=(AddressRange(layout.RTC_INDEX_PORT, 2),),
        parameters={"base_seconds": base_seconds, "memory_bytes": memory_bytes, "announce": 1, **more},
        grants=(Irq(layout.RTC_IRQ),),
        coalesced=(layout.RTC_INDEX_PORT,),
        latches=(layout.RTC_INDEX_PORT,),
        on_demand=True,
    )
