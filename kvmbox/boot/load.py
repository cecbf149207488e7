"""Load a guest image: from bytes to guest memory and the first register state.

    read_image ─► load_image ─┬─ --mode real ─────────────► real_mode
                              ├─ Multiboot 1 header ──────► addresses of the header, or ELF  ─► 32-bit entry
                              ├─ ELF32 ─────────────────────────────────────────────────────► 32-bit entry
                              └─ ELF64 ─────────────────────────────────────────────────────► 64-bit entry

Everything is checked before the first byte of guest memory is written. An image can be loaded again and
again: a reboot of the guest clears memory and calls `load_image` with the same arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvmbox import layout
from kvmbox.boot import detect, elf, entry, information, multiboot_header, real_mode
from kvmbox.boot.image import BootModule, GuestImage, read_image, read_module
from kvmbox.boot.segments import LoadSegment, check_placement, copy_segments
from kvmbox.boot.state import CpuState
from kvmbox.memory import GuestMemory

__all__ = ["BootModule", "BootOptions", "BootResult", "GuestImage", "load_image", "read_image", "read_module"]


@dataclass(frozen=True, slots=True)
class BootOptions:
    """How to boot.

    `command_line` follows the image's name. `mode` is "auto" (by content) or "real" (a flat 16-bit image, at
    `load_address` or 0x7c00).
    """

    command_line: str = ""
    modules: tuple[BootModule, ...] = ()
    mode: str = "auto"
    load_address: int | None = None


@dataclass(frozen=True, slots=True)
class BootResult:
    """A loaded guest. `format` is "multiboot", "elf32", "elf64" or "real"; `entry` is guest-physical."""

    state: CpuState
    format: str
    entry: int


def load_image(image: GuestImage, memory: GuestMemory, options: BootOptions) -> BootResult:
    """Put `image` into `memory`, which reads as zero, and say how to enter it; ImageError if that cannot be."""
    if not image.data:
        raise image.error("the image is empty")
    if options.mode == "real":
        return _load_real(image, memory, options)
    if options.load_address is not None:
        raise image.error(
            "a load address is for flat 16-bit images; others say themselves where they go",
            hint="add --mode real, or leave --load-address out",
        )
    header = detect.find_multiboot(image)
    if header is not None and header.flags & multiboot_header.FLAG_ADDRESSES:
        plan = multiboot_header.plan_addresses(image, header)
        return _load_protected(image, memory, options, [plan.segment], plan.entry, "multiboot")
    if not elf.is_elf(image.data):
        if header is not None:
            raise image.error(
                "its Multiboot header has no load addresses (flag bit 16), and the file is not ELF",
                hint="set bit 16 and the address fields, or link the kernel as ELF",
            )
        raise detect.unrecognised(image)
    parsed = elf.parse_elf(image)
    if header is None:
        detect.check_elf_kind(image, parsed)
    segments = elf.load_segments(parsed)
    address = _elf_entry(image, parsed)
    if header is not None:
        return _load_protected(image, memory, options, segments, address, "multiboot")
    if parsed.bits == 32:
        return _load_protected(image, memory, options, segments, address, "elf32")
    _load_with_information(image, memory, options, segments)
    return BootResult(entry.long_mode_state(memory, address), "elf64", address)


def _load_real(image: GuestImage, memory: GuestMemory, options: BootOptions) -> BootResult:
    if options.modules or options.command_line:
        what = "modules" if options.modules else "a command line"
        raise image.error(
            f"a flat 16-bit image cannot be given {what}", hint="leave --append and --module out"
        )
    state = real_mode.load_real_mode(image, memory, options.load_address)
    return BootResult(state, "real", state.cs.base + state.rip)


def _elf_entry(image: GuestImage, parsed: elf.ElfImage) -> int:
    address = parsed.physical_entry()
    if address is None:
        raise image.error(
            f"its entry {parsed.entry:#x} is in no loaded segment",
            hint="check ENTRY() in the linker script, and that the entry's section is kept",
        )
    if address >= layout.MMIO_HOLE_END:
        raise image.error(
            f"its entry is at {address:#x} in physical memory; it must be below 4 GiB to be reached",
            hint="check the load addresses (LMA) in the linker script",
        )
    return address


def _load_protected(
    image: GuestImage,
    memory: GuestMemory,
    options: BootOptions,
    segments: Sequence[LoadSegment],
    address: int,
    image_format: str,
) -> BootResult:
    _load_with_information(image, memory, options, segments)
    # Multiboot promises no stack. ELF32 entries do, and a valid ESP harms nobody else.
    state = entry.protected_mode_state(memory, address, stack=layout.BOOT_STACK_TOP)
    return BootResult(state, image_format, address)


def _load_with_information(
    image: GuestImage, memory: GuestMemory, options: BootOptions, segments: Sequence[LoadSegment]
) -> None:
    if not memory.contains(0, layout.BOOT_AREA_END):
        raise image.error(f"the guest's memory of {memory.size} bytes is too small for any kernel")
    check_placement(image, segments, memory)
    planned = information.plan_information(image, memory, segments, options.command_line, options.modules)
    copy_segments(image, segments, memory)
    planned.write(memory)
