"""Pure models of the legacy devices: functions of state, input and guest time.

A program may use them as they are. Time is a number that it passes in. What a model asks for comes back as
effects, which the program applies or ignores:

>>> from kvmbox.devices import HostOutput, Uart16550A
>>> uart = Uart16550A()
>>> uart.write(0, 0, 1, ord("A"))
>>> [effect.data for effect in uart.take_effects() if isinstance(effect, HostOutput)]
[b'A']

`DeviceModel` has what all of them can do. The names below are loaded when they are first used.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.contract.bulk_data import Flush, Window
    from kvmbox.contract.model import (
        ContentRead,
        DeviceModel,
        Effect,
        HostOutput,
        InputRoom,
        IrqLine,
        MemoryModel,
        MemoryRead,
        MemoryWrite,
        Reset,
        SnapshotError,
        Stop,
        Suspend,
        TakeLine,
        Transfer,
    )
    from kvmbox.devices.acpi.model import AcpiPm
    from kvmbox.devices.acpi.power_off_ports import PowerOffPorts
    from kvmbox.devices.bios.boot_disk import BootDisk
    from kvmbox.devices.bios.report_port import BiosReport
    from kvmbox.devices.debug.model import DebugCon, DebugExit, PostPort, ShutdownPort
    from kvmbox.devices.debug.pvpanic import PvPanic
    from kvmbox.devices.fw_cfg.model import FwCfg
    from kvmbox.devices.hpet.model import Hpet
    from kvmbox.devices.ide.model import IdeChannel
    from kvmbox.devices.pci.model import PciHost
    from kvmbox.devices.pci.reset_control import ResetControl
    from kvmbox.devices.pit.model import Pit8254
    from kvmbox.devices.ps2.model import I8042
    from kvmbox.devices.qcow2.model import Qcow2
    from kvmbox.devices.rtc.model import RtcMc146818
    from kvmbox.devices.testdev.model import PcTestdev
    from kvmbox.devices.uart.model import Uart16550A
    from kvmbox.devices.vga.dispi import VbeDispi
    from kvmbox.devices.vga.model import VgaText
    from kvmbox.devices.virtio.blk import VirtioBlk
    from kvmbox.devices.virtio.console import VirtioConsole
    from kvmbox.devices.virtio.net import VirtioNet
    from kvmbox.devices.virtio.pci import VirtioBlkPci, VirtioConsolePci, VirtioNetPci, VirtioRngPci
    from kvmbox.devices.virtio.rng import VirtioRng

# The formatter would give each name a line of its own.
# fmt: off
__all__ = [
    "E1000", "I8042", "AcpiPm", "BiosReport", "BootDisk", "ContentRead", "DebugCon", "DebugExit",
    "DeviceModel", "Effect", "Flush", "FwCfg", "HostOutput", "Hpet", "IdeChannel", "InputRoom", "IrqLine",
    "MemoryModel", "MemoryRead", "MemoryWrite", "PcTestdev", "PciHost", "Pit8254", "PostPort",
    "PowerOffPorts", "PvPanic", "Qcow2", "Reset", "ResetControl", "RtcMc146818", "ShutdownPort",
    "SnapshotError", "Stop", "Suspend", "TakeLine", "Transfer", "Uart16550A", "VbeDispi", "VgaText",
    "VirtioBlk", "VirtioBlkPci", "VirtioConsole", "VirtioConsolePci", "VirtioNet", "VirtioNetPci",
    "VirtioRng", "VirtioRngPci", "Window",
]
# fmt: on


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'kvmbox.devices' has no attribute '{name}'")
    from kvmbox.contract import bulk_data, catalog, model

    homes = [home for home in (model, bulk_data) if hasattr(home, name)]
    found: object
    if homes:
        found = getattr(homes[0], name)
    else:
        (model_name,) = [one for one, place in catalog.MODELS.items() if place.endswith(f":{name}")]
        found = catalog.model_class(model_name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
