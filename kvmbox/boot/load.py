"""Load an image: choose a way to boot it, plan all of it, then write guest memory once.

Loading depends on nothing but its arguments, so a reboot of the guest clears memory and loads the same
`GuestImage` again. Nothing is written until everything was checked.
"""

from __future__ import annotations

from kvmbox.base.memory import GuestMemory
from kvmbox.base.value_classes import Value
from kvmbox.boot.choose import AUTO, choose
from kvmbox.boot.image import GuestImage, Module
from kvmbox.boot.plan import BootContext, BootPlan
from kvmbox.boot.segments import check_firmware, copy_segments
from kvmbox.firmware.all_tables import NO_TABLES, firmware_tables
from kvmbox.firmware.platform import NO_DRIVES, Further, Platform


class BootOptions(Value):
    """How to boot.

    `boot` is the way, or "auto". `command_line` follows the image's name in what the guest is told.
    `load_address`, `entry` (CS, IP) and `segments` are for flat 16-bit images only. `bios` is "builtin",
    "none" or None; `bios_rom` is the ROM of the built-in BIOS, for the ways that have one, and `further` are
    its drives besides the image.
    """

    command_line: str | None = None
    modules: tuple[Module, ...] = ()
    initrd: Module | None = None
    boot: str = AUTO
    load_address: int | None = None
    entry: tuple[int, int] | None = None
    segments: str | None = None
    firmware_tables: bool = True
    bios: str | None = None
    bios_rom: bytes = b""
    further: Further = NO_DRIVES


def _command_line(image: GuestImage, way: str, given: str | None, platform: Platform) -> str | None:
    if not platform.virtio:
        return given
    from kvmbox.boot.linux.virtio_parameters import with_virtio

    return with_virtio(image, way, given, platform.virtio)


def load_image(
    image: GuestImage, memory: GuestMemory, options: BootOptions, platform: Platform | None = None
) -> BootPlan:
    """Put `image` into `memory`, which is fresh or cleared, and say how the vCPU starts.

    Raises ImageError for an image that cannot be booted, UsageError for options that contradict each
    other; memory is unchanged then.
    """
    platform = platform or Platform(memory.size)
    way = choose(image, options.boot, bios=options.bios).way
    tables = firmware_tables(platform) if options.firmware_tables else NO_TABLES
    given = options.as_dict()
    del given["boot"], given["firmware_tables"]
    given["command_line"] = _command_line(image, way.name, options.command_line, platform)
    context = BootContext(memory, platform, tables.rsdp, firmware=tables.writes, **given)
    plan = way.plan(image, context)
    firmware = tables.writes if plan.has_firmware else ()
    check_firmware(image, plan.segments, firmware)
    copy_segments(image, plan.segments, memory)
    for address, data in (*firmware, *plan.writes):
        memory.write(address, data)
    if plan.rom is not None:
        memory.add_rom(*plan.rom)
    return plan
