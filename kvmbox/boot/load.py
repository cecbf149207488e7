"""Load an image: decide what it is, check all of it, then write guest memory once.

Loading depends on nothing but its arguments, so a reboot of the guest clears memory and loads the same
`GuestImage` again. Nothing is written until everything was checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from kvmbox import layout
from kvmbox.boot import entry_state
from kvmbox.boot.detect import identify
from kvmbox.boot.elf import ELF_MAGIC, parse_elf
from kvmbox.boot.flat import plan_flat
from kvmbox.boot.image import ACCEPTED, GuestImage, Module
from kvmbox.boot.multiboot import FLAG_ADDRESSES, MultibootHeader, address_override, check_demands
from kvmbox.boot.multiboot_info import plan_information
from kvmbox.boot.segments import LoadSegment, check_placement, copy_segments
from kvmbox.boot.state import CpuState
from kvmbox.errors import UsageError
from kvmbox.lean import Value
from kvmbox.memory import GuestMemory


class BootOptions(Value):
    """How to boot.

    `command_line` follows the image's name in what the guest is told; `load_address` is for mode 'real'
    only, `command_line` and `modules` for mode 'auto' only.
    """

    command_line: str | None = None
    modules: tuple[Module, ...] = ()
    mode: Literal["auto", "real"] = "auto"
    load_address: int | None = None


class BootResult(Value):
    """What was loaded. `format` is 'multiboot', 'elf32', 'elf64' or 'real'; addresses are guest-physical.

    `modules` has the (start, end) of each module.
    """

    state: CpuState
    format: str
    entry: int
    segments: tuple[LoadSegment, ...]
    modules: tuple[tuple[int, int], ...] = ()


def load_image(image: GuestImage, memory: GuestMemory, options: BootOptions) -> BootResult:
    """Put `image` into `memory`, which is fresh or cleared, and say how the vCPU starts.

    Raises ImageError for an image that cannot be booted, UsageError for options that contradict each
    other; memory is unchanged then.
    """
    if options.mode == "real":
        return _load_flat(image, memory, options)
    if options.load_address is not None:
        raise UsageError(
            "--load-address has a meaning with --mode real only", hint="ELF files say where they go"
        )
    header = identify(image)
    if header is not None:
        return _load_multiboot(image, header, memory, options)
    elf = parse_elf(image)
    if elf.bits == 64:
        _check_reach(image, elf.entry)
        state = entry_state.long_mode_state(elf.entry)
    else:
        state = entry_state.protected_mode_state(elf.entry, stack=layout.BOOT_STACK_TOP)
    modules = _write_all(image, elf.segments, memory, options)
    if elf.bits == 64:
        entry_state.write_page_tables(memory)
    return BootResult(state, f"elf{elf.bits}", elf.entry, elf.segments, modules)


def _load_multiboot(
    image: GuestImage, header: MultibootHeader, memory: GuestMemory, options: BootOptions
) -> BootResult:
    check_demands(image, header)
    segments: tuple[LoadSegment, ...]
    if header.flags & FLAG_ADDRESSES:
        segment, entry = address_override(image, header)
        segments = (segment,)
    elif image.data.startswith(ELF_MAGIC):
        elf = parse_elf(image, has_other_entry=True)
        segments, entry = elf.segments, elf.entry
        _check_reach(image, entry)
    else:
        raise image.error(
            f"it has a Multiboot header without address fields (flag 16), and is no ELF file; {ACCEPTED}",
            hint="build it as ELF, or give the header its address fields",
        )
    modules = _write_all(image, segments, memory, options)
    return BootResult(entry_state.protected_mode_state(entry), "multiboot", entry, segments, modules)


def _load_flat(image: GuestImage, memory: GuestMemory, options: BootOptions) -> BootResult:
    if options.modules:
        raise UsageError(
            "--module has no meaning with --mode real", hint="modules are for ELF and Multiboot kernels"
        )
    if options.command_line is not None:
        raise UsageError(
            "--append has no meaning with --mode real", hint="a command line is for ELF and Multiboot"
        )
    segment, stack = plan_flat(image, options.load_address, memory)
    copy_segments(image, (segment,), memory)
    state = entry_state.real_mode_state(segment.address, stack)
    return BootResult(state, "real", segment.address, (segment,))


def _write_all(
    image: GuestImage, segments: Sequence[LoadSegment], memory: GuestMemory, options: BootOptions
) -> tuple[tuple[int, int], ...]:
    check_placement(image, segments, memory)
    information = plan_information(image, segments, memory, options.command_line, options.modules)
    copy_segments(image, segments, memory)
    entry_state.write_gdt(memory)
    information.write(memory)
    return information.module_ranges


def _check_reach(image: GuestImage, entry: int) -> None:
    """A 64-bit file may have its entry where neither 32-bit code nor the identity map goes."""
    if entry >= layout.MMIO_HOLE_END:
        raise image.error(
            f"its entry {entry:#x} is not below 4 GiB, the part of memory that it is entered with",
            hint="give the segment with the entry a load address (LMA) below 4 GiB",
        )
