"""`kvmbox run --inject help`, and the words that a shell completes behind `--inject`."""

from __future__ import annotations

from typing import Final

import click

from kvmbox.contract.device_spec import DeviceSpec, by_type
from kvmbox.contract.names import SERIAL_PORTS
from kvmbox.devices.pc_board import BoardOptions, whole_board
from kvmbox.parts.inject import fault_table

VALUES: Final = (
    (
        fault_table.CHANCE,
        "a probability from 0 to 1; each event is hit or not, and the same ones in each run",
    ),
    (
        fault_table.LATE,
        "a probability, and how late: 0.1@20 by 20 accesses of the guest, 0.1@2ms by 2 ms of guest time",
    ),
    (
        fault_table.SPAN,
        "how long: 20 events (busy: reads of LSR, vanish: accesses), 2ms of guest time, or forever",
    ),
    (fault_table.STEP, "seconds with a sign: +3600, -86400"),
    (fault_table.EACH, "every Nth read or write of a disk"),
    (fault_table.DELAY, "milliseconds of the host, while the guest runs"),
)

MODIFIERS: Final = (
    ("seed=N", "another seed hits other events"),
    ("after=N", "the faults begin after N accesses of the guest to the device"),
    ("at=TIME", "the faults begin at this guest time: 1.5s, 200ms, 30us"),
)


def every_device() -> list[DeviceSpec]:
    """All devices that a PC can have without an image's doing, and one disk, one CD and one network."""
    devices = whole_board(BoardOptions(serial_ports=SERIAL_PORTS, rtc_base=0, memory_size=0, testdev=True))
    return [
        *devices,
        fault_table.disk_target("disk0"),
        fault_table.disk_target("cd0"),
        fault_table.net_target("net0"),
    ]


def list_faults() -> None:
    """Print the table of the faults, and which devices there are."""
    lines = ["--inject DEVICE:FAULT=VALUE[,FAULT=VALUE...][,seed=N][,after=N][,at=TIME]", ""]
    lines.append("Faults, each with an example:")
    for fault in fault_table.FAULTS.values():
        whose = "" if fault.of == fault_table.ANY else f" ({fault_table.MODELS.get(fault.of, fault.of)})"
        lines.append(f"  {fault.name + '=' + fault.takes:<22} {fault.text}{whose}")
        lines.append(f"  {'':<22}   --inject {fault.example}")
    for title, rows in (("Values", VALUES), ("Beside them", MODIFIERS)):
        lines += ["", f"{title}:", *(f"  {name:<22} {text}" for name, text in rows)]
    lines += ["", "Devices, by type; a type names all of its devices:"]
    for name, devices in by_type(every_device()).items():
        lines.append(f"  {name:<22} {', '.join(device.name for device in devices)}")
    click.echo("\n".join(lines))


def words(incomplete: str) -> list[str]:
    """What `incomplete`, the beginning of a fault, may become with one word more."""
    devices = every_device()
    name, colon, rest = incomplete.partition(":")
    if not colon:
        known = ["help", *by_type(devices), *(device.name for device in devices)]
        return [word if word == "help" else f"{word}:" for word in known if word.startswith(name)]
    done, comma, last = rest.rpartition(",")
    meant = [device for device in devices if name in (device.name, device.device_type)]
    names = [
        *dict.fromkeys(fault for device in meant for fault in fault_table.faults_of(device)),
        "seed",
        "after",
        "at",
    ]
    return [f"{name}:{done}{comma}{word}=" for word in names if word.startswith(last)] if meant else []
