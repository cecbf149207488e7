"""Model names, as the HELLO frame of a device process spells them, and what they build.

Parameters are integers or bytes: they cross a process boundary in HELLO. The module of a model is loaded when
the model is first wanted. A device process can open no file, so its spawner has kept the code of all modules
in memory (`jail.kept_modules`), or else has loaded them.
"""

from __future__ import annotations

import struct  # noqa: F401 - models import it where no file can be opened

from kvmbox.base import layout  # noqa: F401 - so do some this

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final

    from kvmbox.contract.model import DeviceModel

CHIPS: Final = "kvmbox.devices"
"""The package of the models."""

MODELS: Final[Mapping[str, str]] = {
    "uart_16550a": "uart.model:Uart16550A",
    "pit_8254": "pit.model:Pit8254",
    "rtc_mc146818": "rtc.model:RtcMc146818",
    "i8042": "ps2.model:I8042",
    "acpi_pm": "acpi.model:AcpiPm",
    "power_off_ports": "acpi.power_off_ports:PowerOffPorts",
    "hpet": "hpet.model:Hpet",
    "debugcon": "debug.model:DebugCon",
    "debug_exit": "debug.model:DebugExit",
    "post": "debug.model:PostPort",
    "shutdown_port": "debug.model:ShutdownPort",
    "pvpanic": "debug.pvpanic:PvPanic",
    "reset_control": "pci.reset_control:ResetControl",
    "fw_cfg": "fw_cfg.model:FwCfg",
    "pc_testdev": "testdev.model:PcTestdev",
    "bios_report": "bios.report_port:BiosReport",
    "boot_disk": "bios.boot_disk:BootDisk",
    "ide": "ide.model:IdeChannel",
    "vga_text": "vga.model:VgaText",
    "vbe_dispi": "vga.dispi:VbeDispi",
    "virtio_blk": "virtio.blk:VirtioBlk",
    "virtio_rng": "virtio.rng:VirtioRng",
    "virtio_console": "virtio.console:VirtioConsole",
    "virtio_net": "virtio.net:VirtioNet",
    "qcow2": "qcow2.model:Qcow2",
    "pci_host": "pci.model:PciHost",
    "virtio_blk_pci": "virtio.pci:VirtioBlkPci",
    "virtio_rng_pci": "virtio.pci:VirtioRngPci",
    "virtio_console_pci": "virtio.pci:VirtioConsolePci",
    "virtio_net_pci": "virtio.pci:VirtioNetPci",
    "E1000": "e1000.model:E1000",
}
"""By name: the module in `CHIPS`, and the class."""

USUAL: Final[Mapping[str, Sequence[str]]] = {
    "uart": ("uart_16550a",),
    "debug": ("debugcon", "pvpanic", "reset_control"),
}
"""By the type of a device process that most guests use: a model of each module that it needs."""

BY_TEXT: Final = "E1000"
"""A device process gets the text of its module."""


def model_class(name: str) -> Callable[..., DeviceModel]:
    """The class of a model; KeyError for an unknown name."""
    module_name, _, class_name = MODELS[name].partition(":")
    module = __import__(f"{CHIPS}.{module_name}", fromlist=["_"])
    found: Callable[..., DeviceModel] = getattr(module, class_name)
    return found


def build_model(name: str, parameters: Mapping[str, int | bytes]) -> DeviceModel:
    """The model `name`; KeyError for an unknown name, TypeError for an unknown parameter."""
    return model_class(name)(**parameters)


def load_usual(device_type: str) -> None:
    """Load the models that a device process will want, before it is told so."""
    for name in USUAL.get(device_type, ()):
        model_class(name)


def load_all() -> None:
    """Load every model that a device process may want."""
    for name in MODELS:
        if name != BY_TEXT:
            model_class(name)
