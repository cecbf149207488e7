"""The DSDT's definition block: sleep states, processors, and the devices that cannot be found otherwise.

There are objects with constant values only, so nothing of it is executed. The names of the devices are ours,
their ids those of the Plug and Play list and of QEMU.
"""

from __future__ import annotations

from typing import Final

from kvmbox.base import layout
from kvmbox.firmware import aml
from kvmbox.firmware.platform import Platform

# _STA (ACPI Specification 6.5, section 6.3.7).
_PRESENT: Final = 0x01
_ENABLED: Final = 0x02
_SHOWN: Final = 0x04
_FUNCTIONING: Final = 0x08
_ALL: Final = _PRESENT | _ENABLED | _SHOWN | _FUNCTIONING
_HIDDEN: Final = _PRESENT | _ENABLED | _FUNCTIONING

_ALL_FUNCTIONS: Final = 0xFFFF
_INTA: Final = 0
_PCI_END: Final = layout.PCI_ADDRESS_PORT + layout.PCI_PORT_COUNT
_PCI_WINDOWS: Final = (
    aml.bus_numbers(0, 0),
    aml.io_ports(layout.PCI_ADDRESS_PORT, layout.PCI_PORT_COUNT),
    aml.io_window(0, layout.PCI_ADDRESS_PORT - 1),
    aml.io_window(_PCI_END, layout.PCI_PORTS_END - 1),
    aml.memory_window(layout.LOW_MEMORY_END, layout.TEXT_SCREEN + layout.TEXT_SCREEN_SIZE - 1),
    aml.memory_window(layout.FRAME_BUFFER, layout.PCI_MEMORY_END - 1),
)


def definition_block(platform: Platform) -> bytes:
    """The AML of `platform`, as it follows the header of the table."""
    return b"".join(
        (
            *(_sleep_state(state, sleep_type) for state, sleep_type in layout.SLEEP_TYPES.items()),
            aml.scope(
                "_SB",
                *(_processor(number) for number in range(platform.cpus)),
                *_serial_ports(platform),
                _keyboard_controller(),
                _mouse(),
                _timer(),
                _real_time_clock(),
                _hpet(),
                _fw_cfg(),
                _pvpanic(),
                *_virtio(platform),
                *_pci(platform),
            ),
        )
    )


def _sleep_state(state: str, sleep_type: int) -> bytes:
    """What goes to SLP_TYP of PM1a and of PM1b, and two reserved words (section 7.4.2)."""
    values = (sleep_type, sleep_type, 0, 0)
    return aml.name(f"_{state}", aml.package(*(aml.integer(value) for value in values)))


def _device(
    name: str, hardware_id: bytes, *resources: bytes, uid: int | None = None, status: int = _ALL
) -> bytes:
    return aml.device(
        name,
        aml.name("_HID", hardware_id),
        *([] if uid is None else [aml.name("_UID", aml.integer(uid))]),
        aml.name("_STA", aml.integer(status)),
        aml.name("_CRS", aml.resource_template(*resources)),
    )


def _processor(number: int) -> bytes:
    """A processor device: _UID is the processor's in the MADT (section 8.4)."""
    return aml.device(
        f"C{number:03X}",
        aml.name("_HID", aml.string("ACPI0007")),
        aml.name("_UID", aml.integer(number)),
    )


def _serial_ports(platform: Platform) -> list[bytes]:
    """16550A-compatible COM ports; the memory-mapped one is the fifth."""
    devices = []
    for number, name in enumerate((*layout.COM_PORTS, "MMIO"), start=1):
        if name not in platform.serial_ports:
            continue
        if name == "MMIO":
            registers = aml.memory32_fixed(layout.MMIO_UART_BASE, layout.UART_PORT_COUNT, writable=True)
            line = layout.MMIO_UART_IRQ
        else:
            registers = aml.io_ports(layout.COM_PORTS[name], layout.UART_PORT_COUNT)
            line = layout.COM_IRQS[name]
        devices.append(_device(f"COM{number}", aml.eisa_id("PNP0501"), registers, aml.irq(line), uid=number))
    return devices


def _keyboard_controller() -> bytes:
    return _device(
        "KBD",
        aml.eisa_id("PNP0303"),
        aml.io_ports(layout.I8042_DATA_PORT, 1),
        aml.io_ports(layout.I8042_COMMAND_PORT, 1),
        aml.irq(layout.I8042_IRQ),
    )


def _mouse() -> bytes:
    """Its registers are those of the keyboard's controller."""
    return _device("MOU", aml.eisa_id("PNP0F13"), aml.irq(layout.I8042_AUX_IRQ))


def _timer() -> bytes:
    return _device(
        "PIT",
        aml.eisa_id("PNP0100"),
        aml.io_ports(layout.PIT_PORT, layout.PIT_PORT_COUNT),
        aml.irq(layout.PIT_IRQ),
    )


def _real_time_clock() -> bytes:
    return _device(
        "RTC", aml.eisa_id("PNP0B00"), aml.io_ports(layout.RTC_INDEX_PORT, 2), aml.irq(layout.RTC_IRQ)
    )


def _hpet() -> bytes:
    """Its interrupts are set in its own registers."""
    return _device(
        "HPET",
        aml.eisa_id("PNP0103"),
        aml.memory32_fixed(layout.HPET_BASE, layout.HPET_SIZE, writable=False),
    )


def _fw_cfg() -> bytes:
    """QEMU's firmware configuration device with its DMA register (QEMU's docs/specs/fw_cfg)."""
    return _device(
        "FWCF",
        aml.string("QEMU0002"),
        aml.io_ports(layout.FW_CFG_PORT, layout.FW_CFG_DMA_PORT + 8 - layout.FW_CFG_PORT),
        status=_HIDDEN,
    )


def _pvpanic() -> bytes:
    """QEMU's pvpanic (QEMU's docs/specs/pvpanic)."""
    return _device("PEVT", aml.string("QEMU0001"), aml.io_ports(layout.PVPANIC_PORT, 1))


def _virtio(platform: Platform) -> list[bytes]:
    """Virtio devices over MMIO, by the id that Linux and QEMU's microvm have for them."""
    return [
        _device(
            f"VR{number:02X}",
            aml.string("LNRO0005"),
            aml.memory32_fixed(address, layout.VIRTIO_SIZE, writable=True),
            aml.interrupt(line),
            uid=number,
        )
        for number, (address, line) in enumerate(platform.virtio)
    ]


def _pci(platform: Platform) -> list[bytes]:
    """The host bridge, what it passes on, and where the pins of its functions lead (section 6.2.13)."""
    if platform.pci is None:
        return []
    routes = [
        aml.package(
            aml.integer(number << 16 | _ALL_FUNCTIONS), aml.integer(_INTA), aml.integer(0), aml.integer(line)
        )
        for number, line in platform.pci
    ]
    return [
        aml.device(
            "PCI0",
            aml.name("_HID", aml.eisa_id("PNP0A03")),
            aml.name("_BBN", aml.integer(0)),
            aml.name("_CRS", aml.resource_template(*_PCI_WINDOWS)),
            aml.name("_PRT", aml.package(*routes)),
        )
    ]
