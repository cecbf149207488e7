"""Device models: programs of accesses, time, input, answers, snapshots, restores and resets.

An input is a variant of the model, a property, and a program (`tests/support/model_programs.py`). After every
call the contract is checked (`tests/support/model_rig.py`): nothing raises, values fit, and effects are those
that the board grants.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import chain
from typing import Final

from kvmbox.contract.device_spec import DeviceSpec, Irq, Medium
from kvmbox.devices.rfb.board import vnc_server
from kvmbox.devices.vga.dispi import VbeDispi
from kvmbox.devices.vga.model import VgaText
from tests.fuzz.scripts import SCRIPTS
from tests.support.dice import Dice
from tests.support.ide_host import cd, disk
from tests.support.model_programs import Step, steps_from
from tests.support.model_rig import (
    Rig,
    check_harmless,
    check_often,
    check_steady,
    check_twin,
    check_watched,
    try_restore,
)
from tests.support.model_variants import VARIANTS

DISKS: Final = struct.pack("<4Q", 5000, 0, 4_000_000, 5000)
"""Sectors of those that a clock's memory tells of."""
_DISK: Final = VARIANTS["virtio_blk"]
FUZZED: Final = {
    **VARIANTS,
    **{
        f"{name} quiet": DeviceSpec(
            **VARIANTS[name].as_dict() | {"parameters": {**VARIANTS[name].parameters, "announce": 0}}
        )
        for name in ("pit_8254", "rtc_mc146818", "hpet")
    },
    "ide alone": DeviceSpec(
        **VARIANTS["ide"].as_dict() | {"parameters": {"master": disk(5000, b"1", writable=False)}}
    ),
    "rtc_mc146818 disks": DeviceSpec(
        **VARIANTS["rtc_mc146818"].as_dict()
        | {"parameters": {**VARIANTS["rtc_mc146818"].parameters, "disks": DISKS}}
    ),
    "virtio_blk read-only": DeviceSpec(
        **_DISK.as_dict() | {"parameters": {**_DISK.parameters, "read_only": 1}}
    ),
    "ide dvd": DeviceSpec(
        **VARIANTS["ide"].as_dict()
        | {
            "parameters": {"slave": cd(2_000_000, b"2")},
            "grants": (Irq(14), Medium("", 0, window=0), Medium("dvd", 2_000_000 * 2048, window=0)),
        }
    ),
    "RfbServer": vnc_server(),
}
"""The variants, and those that only fuzzers use."""


def damaged(dice: Dice, state: bytes) -> bytes:
    """A snapshot with a few things wrong, or none."""
    changed = bytearray(state)
    for _ in range(dice.some((1, 1, 1, 2, 5))):
        match dice.randrange(5):
            case 0 if changed:
                changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
            case 1 if changed:
                place = dice.randrange(len(changed))
                size = dice.some((1, 2, 4, 8))
                changed[place : place + size] = dice.some((b"\xff", b"\0", b"\x80", b"\1")) * size
            case 2:
                del changed[dice.randrange(len(changed) + 1) :]
            case 3:
                changed += dice.randbytes(dice.some((1, 8, 28, 5000)))
            case 4 if changed:
                changed[dice.randrange(len(changed))] = dice.byte()
    return bytes(changed)


def _damage(rig: Rig, dice: Dice, after: list[Step]) -> None:
    """One damaged snapshot after the other, until one is taken."""
    good = rig.snapshot()
    while not dice.ended:
        state = damaged(dice, good)
        if state != good and try_restore(rig, state):
            check_harmless(rig, state, after)
            return


def look_at(model: object) -> None:
    """What the VMM asks a model of its own that shows a screen."""
    if isinstance(model, VbeDispi):
        assert model.bank is None or model.bank < 256
    elif isinstance(model, VgaText):
        window = model.window
        plain, offered = window.plain, window.offered
        assert plain is None or offered is None
        assert len(window.planes_with(bytes(0 if plain is None else plain[1]))) == 1 << 18
        assert offered is None or len(offered[1]) <= 1 << 17
        assert len(model.palette) == 3 * 256
        assert (model.is_shown, model.has_graphics, model.blinks) <= (True, True, True)


def playing(*names: str) -> Callable[[Dice], None]:
    """The target that has these variants of models."""

    def play(dice: Dice) -> None:
        device = FUZZED[dice.some(names)]
        how, cut = dice.byte(), dice.byte()
        way, script = how % 8, SCRIPTS.get(device.model, ())[how // 8 - 1 : how // 8] if how >= 8 else ()
        damage = Dice(dice.randbytes(dice.byte() % 40) if way in (4, 5) else b"")
        steps = [*chain(*script), *steps_from(device.model, dice)]
        rig, middle = Rig(device), len(steps) * cut // 256
        match way:
            case 0 | 1:
                rig.play(steps)
                rig.snapshot()
                look_at(rig.model)
            case 2 | 3:
                rig.play(steps[:middle])
                check_twin(rig, steps[middle:])
            case 4 | 5:
                rig.play(steps[:middle])
                _damage(rig, damage, steps[middle:])
            case 6:
                check_steady(rig, steps)
            case _:
                check_often(device, steps, [cut, cut << 12, cut << 22])
                check_watched(device, steps[:20])

    return play


TARGETS: Final[dict[str, Callable[[Dice], None]]] = {
    "uart": playing("uart_16550a", "uart_16550a paced"),
    "pit": playing("pit_8254", "pit_8254 quiet"),
    "rtc": playing("rtc_mc146818", "rtc_mc146818 quiet", "rtc_mc146818 disks"),
    "i8042": playing("i8042"),
    "ide": playing("ide", "ide", "ide alone", "ide dvd"),
    "hpet": playing("hpet", "hpet quiet"),
    "acpi-pm": playing("acpi_pm", "power_off_ports"),
    "debug-ports": playing(
        *("debugcon", "debug_exit", "post", "shutdown_port", "pvpanic", "reset_control", "bios_report")
    ),
    "testdev": playing("pc_testdev"),
    "boot-disk": playing("boot_disk"),
    "fw-cfg": playing("fw_cfg"),
    "vga": playing("vga_text"),
    "vbe": playing("vbe_dispi"),
    "pci-host": playing("pci_host"),
    "virtio-blk": playing("virtio_blk", "virtio_blk read-only", "virtio_net"),
    "virtio-rng": playing("virtio_rng"),
    "virtio-console": playing("virtio_console"),
    "virtio-net": playing("virtio_net", "virtio_net_pci"),
    "virtio-pci": playing("virtio_blk_pci", "virtio_rng_pci", "virtio_console_pci", "virtio_net_pci"),
    "e1000": playing("E1000"),
    "qcow2": playing("qcow2"),
    "rfb": playing("RfbServer"),
}
