"""What a run boots: the image, the modules, and the firmware that it starts with, read once from the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from kvmbox.base.errors import UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.base.symbol_file import SymbolFile
from kvmbox.base.value_classes import Value
from kvmbox.boot import bundled
from kvmbox.boot.boot_files import HostFiles
from kvmbox.boot.choose import AUTO, choose
from kvmbox.boot.elf.headers import ELF_MAGIC
from kvmbox.boot.image import GuestImage, read_module
from kvmbox.boot.load import BootOptions, load_image
from kvmbox.boot.plan import BUILTIN_BIOS, NO_BIOS, BootPlan
from kvmbox.firmware.fw_cfg import FwCfgItem
from kvmbox.firmware.platform import NO_DRIVES, NOTHING, Fields, Further, Platform
from kvmbox.run.options.config import RunConfig


def platform_of(config: RunConfig) -> Platform:
    """The machine as its firmware describes it."""
    return Platform(config.memory_size, config.cpus, tuple(config.serial))


class BootSource(Value):
    """The image, the modules and the firmware. They are read once, so that a reboot loads the same bytes.

    `has_bios` says whether the ROM of the built-in BIOS is in memory, if only to trap what is called.
    `disk` is the image that the BIOS shows as a disk, or as a CD (`is_cd`), if it does. `fw_cfg` has the
    kernel that firmware is to start. `symbols` are the files that name the guest's addresses. `hint` names
    another way to boot, or is empty. `serves_drives` says that what is booted, and is no disk, may ask the
    BIOS for drives. `load_beside` loads the image beside `further` drives of the BIOS, on a platform with
    these `fields`.
    """

    load: Callable[[GuestMemory], BootPlan]
    has_bios: bool = False
    disk: GuestImage | None = None
    fw_cfg: tuple[FwCfgItem, ...] = ()
    symbols: tuple[SymbolFile, ...] = ()
    hint: str = ""
    is_cd: bool = False
    load_beside: Callable[[Further, Fields, GuestMemory], BootPlan] | None = None
    further: Further = NO_DRIVES
    fields: Fields = NOTHING
    serves_drives: bool = False

    def beside(self, further: Further) -> BootSource:
        """The same, with `further` drives of the BIOS."""
        return self._loading(further, self.fields)

    def on_platform(self, **fields: object) -> BootSource:
        """The same, on a platform with these fields."""
        return self._loading(self.further, {**self.fields, **fields})

    def _loading(self, further: Further, fields: Fields) -> BootSource:
        assert self.load_beside is not None
        load = partial(self.load_beside, further, fields)
        return BootSource(**self.as_dict() | {"load": load, "further": further, "fields": fields})

    @classmethod
    def read(cls, config: RunConfig, files: HostFiles | None = None) -> BootSource:
        """Read all of it; ImageError if something cannot be read, UsageError if it does not go together."""
        files = files or HostFiles()
        image, boot = _image(config, files), config.boot
        initrd = None if config.initrd is None else files.module(config.initrd)
        command_line, for_firmware = config.append or None, list[FwCfgItem]()
        if config.bios_file is not None:
            if config.boot not in (AUTO, "bios", "firmware"):
                raise UsageError(f"--bios {config.bios_file} contradicts --boot {config.boot}")
            if config.guest != config.bios_file:
                from kvmbox.boot.linux.for_firmware import kernel_for_firmware

                bios = _decompressed(files.image(config.bios_file))
                for_firmware = kernel_for_firmware(image, command_line, initrd, config.memory_size)
                image, command_line, initrd = bios, None, None
            boot = "firmware"
        choice = choose(image, boot, bios=config.bios)
        way = choice.way
        # A kernel of Multiboot may go back to real mode and call the BIOS of the PC that it was started on.
        serves_drives = (
            way.name in ("multiboot", "multiboot2")
            and config.bios != NO_BIOS
            and config.firmware_tables != "none"
        )
        has_bios = (
            way.name in ("bios", "iso", "real")
            or (way.name == "linux" and _starts_in_real_mode(image))
            or serves_drives
        )
        options = BootOptions(
            command_line=command_line,
            modules=tuple(files.module(spec.path, spec.arguments) for spec in config.modules),
            initrd=initrd,
            boot=way.name,  # chosen once, for all boots
            load_address=config.load_address,
            entry=config.entry,
            segments=config.segments,
            firmware_tables=config.firmware_tables != "none",
            bios=config.bios,
            bios_rom=bundled.bios_rom() if has_bios else b"",
        )
        if config.bios and not has_bios and way.name not in ("multiboot", "multiboot2", "firmware"):
            raise UsageError(
                f"--bios {config.bios} has no meaning for what is booted as '{way.name}'",
                hint="boot sectors, flat 16-bit images and Multiboot kernels may have a BIOS",
            )
        shows_disk = way.name in ("bios", "iso") or (way.name == "real" and config.bios == BUILTIN_BIOS)
        load = partial(_load, image, options, platform_of(config))
        return cls(
            partial(load, NO_DRIVES, NOTHING),
            has_bios,
            image if shows_disk else None,
            tuple(for_firmware),
            tuple(_symbols(config, image)),
            choice.hint,
            way.name == "iso",
            load,
            serves_drives=serves_drives,
        )


def _load(
    image: GuestImage,
    options: BootOptions,
    platform: Platform,
    further: Further,
    fields: Fields,
    memory: GuestMemory,
) -> BootPlan:
    options = BootOptions(**options.as_dict() | {"further": further})
    return load_image(image, memory, options, platform.with_fields(fields))


def _image(config: RunConfig, files: HostFiles) -> GuestImage:
    image = files.image(config.guest)
    return image if config.boots_drive else _decompressed(image)  # what is on a drive stays as it is


def _decompressed(image: GuestImage) -> GuestImage:
    if image.data.startswith(ELF_MAGIC):
        return image
    from kvmbox.boot.compressed import decompressed

    return decompressed(image)


def _starts_in_real_mode(image: GuestImage) -> bool:
    from kvmbox.boot.linux.setup_header import starts_in_real_mode

    return starts_in_real_mode(image.data)


def _symbols(config: RunConfig, image: GuestImage) -> Iterator[SymbolFile]:
    """The files of --symbols, then the image."""
    for spec in config.symbols:
        from kvmbox.explain.symbols import checked

        yield SymbolFile(checked(read_module(spec.path).data, spec.path), spec.base)
    if image.data.startswith(ELF_MAGIC):
        yield SymbolFile(image.data)
