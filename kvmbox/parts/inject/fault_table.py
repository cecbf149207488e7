"""The table of the faults that can be injected: parsing, `--inject help` and reports come from it."""

from __future__ import annotations

from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.contract.device_spec import DeviceSpec

# What a fault's value is.
CHANCE: Final = "P"
"""How likely each event is hit, from 0 to 1."""
LATE: Final = "P@DELAY"
"""The same, and by how much: a number of accesses, or a time with its unit."""
SPAN: Final = "SPAN"
"""How long it lasts: a number of accesses, a time with its unit, or `forever`."""
STEP: Final = "±SECONDS"
"""By how much a clock jumps."""
EACH: Final = "N"
"""Every Nth event is hit."""
DELAY: Final = "MS"
"""How late each event is, in milliseconds of the host."""

ANY: Final = "any device"
WITH_INTERRUPT: Final = "devices with an interrupt"
UART: Final = "uart_16550a"
RTC: Final = "rtc_mc146818"
DISK: Final = "disk"
NET: Final = "net"
MODELS: Final = {UART: "UARTs", RTC: "the RTC", DISK: "disks", NET: "networks"}


class Fault(Value):
    """A row of the table. `takes` is what its value is, `of` whose fault it can be: a model, or a kind of
    devices. `counted` is what a report counts, behind "3 of 271". `text` and `example` are for a person.
    """

    name: str
    takes: str
    of: str
    counted: str
    text: str
    example: str

    def fits(self, device: DeviceSpec) -> bool:
        """Whether `device` can have it."""
        if {DISK, NET} & {self.of, device.model}:
            return self.of == device.model
        if self.of == WITH_INTERRUPT:
            return bool(device.irqs)
        return self.of in (ANY, device.model)


DROP_IRQ: Final = "drop-irq"
DELAY_IRQ: Final = "delay-irq"
SPURIOUS_IRQ: Final = "spurious-irq"
ALL_ONES: Final = "all-ones"
VANISH: Final = "vanish"
BUSY: Final = "busy"
OVERRUN: Final = "overrun"
PARITY: Final = "parity"
FRAMING: Final = "framing"
BREAK: Final = "break"
JUMP: Final = "jump"
EIO: Final = "eio"
SLOW: Final = "slow"
TORN_WRITE: Final = "torn-write"
LOSS: Final = "loss"
CORRUPT: Final = "corrupt"
FRAME_DELAY: Final = "delay"

# The formatter would give each cell a line of its own.
# fmt: off
FAULTS: Final[dict[str, Fault]] = {
    fault.name: fault
    for fault in (
        Fault(DROP_IRQ, CHANCE, WITH_INTERRUPT, "interrupts dropped", "an interrupt never comes",
              "uart:drop-irq=0.01,seed=7"),
        Fault(DELAY_IRQ, LATE, WITH_INTERRUPT, "interrupts delayed", "an interrupt comes later",
              "PIT:delay-irq=0.1@2ms"),
        Fault(SPURIOUS_IRQ, CHANCE, WITH_INTERRUPT, "accesses followed by a spurious interrupt",
              "an interrupt without a cause follows an access", "COM1:spurious-irq=0.05"),
        Fault(ALL_ONES, CHANCE, ANY, "reads gave all ones", "a read gives all ones", "RTC:all-ones=0.001"),
        Fault(VANISH, SPAN, ANY, "accesses not answered",
              "the device is gone: reads give all ones, writes are lost, interrupts stay away",
              "i8042:vanish=forever,after=10"),
        Fault(BUSY, SPAN, UART, "reads of LSR showed a busy transmitter",
              "the transmitter stays busy: LSR shows neither THRE nor TEMT", "COM1:busy=5000,after=100"),
        Fault(OVERRUN, CHANCE, UART, "received bytes overrun",
              "a received byte is lost, and LSR shows OE once", "COM1:overrun=0.02"),
        Fault(PARITY, CHANCE, UART, "received bytes with a parity error", "LSR shows PE with a byte",
              "COM1:parity=0.02"),
        Fault(FRAMING, CHANCE, UART, "received bytes with a framing error", "LSR shows FE with a byte",
              "COM1:framing=0.02"),
        Fault(BREAK, CHANCE, UART, "received bytes became a break",
              "LSR shows BI with a byte, which reads as 0", "COM1:break=0.02"),
        Fault(JUMP, STEP, RTC, "jumps of the clock", "the clock jumps, once", "RTC:jump=+3600,at=1.5s"),
        Fault(EIO, EACH, DISK, "reads and writes failed", "every Nth read or write fails",
              "disk:eio=100"),
        Fault(SLOW, DELAY, DISK, "reads and writes came late",
              "each read and write takes MS milliseconds more", "disk0:slow=20"),
        Fault(TORN_WRITE, EACH, DISK, "writes torn",
              "every Nth write stores its first half only, and fails", "disk:torn-write=50,after=10"),
        Fault(LOSS, CHANCE, NET, "frames lost", "a frame is lost, in either direction", "net:loss=0.1"),
        Fault(CORRUPT, CHANCE, NET, "frames damaged", "a bit of a frame is another one", "net:corrupt=0.01"),
        Fault(FRAME_DELAY, DELAY, NET, "frames came late", "each frame takes MS milliseconds more",
              "net0:delay=20"),
    )
}
# fmt: on
"""Every fault by its name, in the order of the documentation."""


def disk_target(name: str) -> DeviceSpec:
    """A drive of the guest, as something that has faults: whatever device the guest finds it behind."""
    return DeviceSpec(name, DISK, DISK)


def net_target(name: str) -> DeviceSpec:
    """The wire of a network interface, as something that has faults."""
    return DeviceSpec(name, NET, NET)


def faults_of(device: DeviceSpec) -> list[str]:
    """The names of the faults that `device` can have."""
    return [name for name, fault in FAULTS.items() if fault.fits(device)]
