"""Model names, as the HELLO frame of a device process spells them, and what they build.

Parameters are integers or bytes: they cross a process boundary in HELLO.
"""

from __future__ import annotations

from kvmbox.devices.acpi_pm import AcpiPm
from kvmbox.devices.bios_report import BiosReport
from kvmbox.devices.boot_disk import BootDisk
from kvmbox.devices.fw_cfg import FwCfg
from kvmbox.devices.hpet import Hpet
from kvmbox.devices.i8042 import I8042
from kvmbox.devices.media_models import (
    IdeChannel,
    Qcow2,
    VirtioBlk,
    VirtioBlkPci,
    VirtioConsole,
    VirtioConsolePci,
    VirtioNet,
    VirtioNetPci,
    VirtioRng,
    VirtioRngPci,
)
from kvmbox.devices.model import DeviceModel
from kvmbox.devices.pci_host import PciHost
from kvmbox.devices.pit_8254 import Pit8254
from kvmbox.devices.port_models import DebugCon, DebugExit, PostPort, ShutdownPort
from kvmbox.devices.power_off_ports import PowerOffPorts
from kvmbox.devices.pvpanic import PvPanic
from kvmbox.devices.reset_control import ResetControl
from kvmbox.devices.rtc_mc146818 import RtcMc146818
from kvmbox.devices.testdev import PcTestdev
from kvmbox.devices.uart_16550a import Uart16550A
from kvmbox.devices.vbe_dispi import VbeDispi
from kvmbox.devices.vga_text import VgaText

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final


def _e1000(**parameters: bytes) -> DeviceModel:
    """Loaded when it is needed: a device process gets its text."""
    from kvmbox.devices.e1000 import E1000

    return E1000(**parameters)


MODELS: Final[Mapping[str, Callable[..., DeviceModel]]] = {
    "uart_16550a": Uart16550A,
    "pit_8254": Pit8254,
    "rtc_mc146818": RtcMc146818,
    "i8042": I8042,
    "acpi_pm": AcpiPm,
    "power_off_ports": PowerOffPorts,
    "hpet": Hpet,
    "debugcon": DebugCon,
    "debug_exit": DebugExit,
    "post": PostPort,
    "shutdown_port": ShutdownPort,
    "pvpanic": PvPanic,
    "reset_control": ResetControl,
    "fw_cfg": FwCfg,
    "pc_testdev": PcTestdev,
    "bios_report": BiosReport,
    "boot_disk": BootDisk,
    "ide": IdeChannel,
    "vga_text": VgaText,
    "vbe_dispi": VbeDispi,
    "virtio_blk": VirtioBlk,
    "virtio_rng": VirtioRng,
    "virtio_console": VirtioConsole,
    "virtio_net": VirtioNet,
    "qcow2": Qcow2,
    "pci_host": PciHost,
    "virtio_blk_pci": VirtioBlkPci,
    "virtio_rng_pci": VirtioRngPci,
    "virtio_console_pci": VirtioConsolePci,
    "virtio_net_pci": VirtioNetPci,
    "E1000": _e1000,
}


def build_model(name: str, parameters: Mapping[str, int | bytes]) -> DeviceModel:
    """The model `name`; KeyError for an unknown name, TypeError for an unknown parameter."""
    return MODELS[name](**parameters)
