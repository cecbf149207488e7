"""The board of a PC: all devices that its options ask for, in the order of their types. Pure data."""

from __future__ import annotations

from functools import lru_cache

from kvmbox.base import layout
from kvmbox.base.value_classes import Value
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.contract.names import SERIAL_PORTS
from kvmbox.devices.acpi import board as acpi
from kvmbox.devices.debug import board as debug
from kvmbox.devices.fw_cfg import board as fw_cfg
from kvmbox.devices.hpet import board as hpet
from kvmbox.devices.pit import board as pit
from kvmbox.devices.ps2 import board as ps2
from kvmbox.devices.rtc import board as rtc
from kvmbox.devices.uart import board as uart
from kvmbox.devices.vga import board as vga
from kvmbox.firmware.fw_cfg import FwCfgItem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.devices.bios.board import BootDrive


class BoardOptions(Value):
    """What of the board can be chosen.

    `serial_ports` are those present; `rtc_base` is the wall clock that the RTC shows at guest time 0, in
    seconds since 1970; `debug_exit_port` None leaves the debug-exit device out; `uart_pace` makes UARTs take
    the time that their divisor asks for to transmit a character; `testdev` puts the test device of
    kvm-unit-tests on the board; `fw_cfg` are items beyond those that every guest is told; `has_bios` adds
    what is behind the built-in BIOS, and `boot_drives` are the drives that it reads and writes, if any.
    """

    serial_ports: tuple[str, ...]
    rtc_base: int
    memory_size: int
    debug_exit_port: int | None = layout.DEBUG_EXIT_PORT
    uart_pace: bool = False
    cpus: int = 1
    testdev: bool = False
    fw_cfg: tuple[FwCfgItem, ...] = ()
    has_bios: bool = False
    boot_drives: tuple[BootDrive, ...] = ()


def pc_board(options: BoardOptions) -> list[DeviceSpec]:
    """The devices of a PC, in the order of their types, but for those of `whole_board`."""
    first, middle, last = _chips(options.serial_ports, options.uart_pace, options.debug_exit_port)
    board = [*first, rtc.rtc(options.rtc_base, options.memory_size)]
    board += [*middle, fw_cfg.fw_cfg(options.memory_size, options.cpus, options.fw_cfg), *last]
    return board


@lru_cache(maxsize=4)
def _chips(
    serial_ports: tuple[str, ...], uart_pace: bool, debug_exit_port: int | None
) -> tuple[tuple[DeviceSpec, ...], ...]:
    """What is before the RTC, between RTC and fw_cfg, and behind that. Kept: a run asks twice, and warm boots
    have it from their template.
    """
    first = [uart.serial_port(name, pace=uart_pace) for name in SERIAL_PORTS if name in serial_ports]
    middle = [
        ps2.i8042(),
        *debug.first_ports(debug_exit_port),
        *(acpi.power_management(), acpi.power_off_ports(), hpet.hpet()),
        *debug.last_ports(),
    ]
    return (*first, pit.pit()), tuple(middle), (vga.vga(), vga.vbe())


def pc_extras(options: BoardOptions) -> list[DeviceSpec]:
    """What of a board has to be asked for."""
    devices: list[DeviceSpec] = []
    if options.testdev:
        from kvmbox.devices.testdev.board import testdev

        devices.append(testdev())
    if options.has_bios:
        from kvmbox.devices.bios.board import bios_devices

        devices += bios_devices(options.boot_drives)
    return devices


def whole_board(options: BoardOptions) -> list[DeviceSpec]:
    """All devices of a PC without disks."""
    return pc_board(options) + pc_extras(options)
