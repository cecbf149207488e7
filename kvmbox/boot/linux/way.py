"""The way of Linux: a bzImage at its 64-bit or 32-bit entry, or a vmlinux (ELF) at its own.

Documentation/arch/x86/boot.rst describes both entries. An image that has neither starts with its setup code
(`boot.linux.real_mode_setup`). An ELF file is taken for a vmlinux if it has a note of
Linux' name; one that also has a PVH note is offered to that way first.
"""

from __future__ import annotations

from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.boot.boot_area import DEFAULT_INFO_SIZE, InfoWriter, place_area
from kvmbox.boot.disk.boot_marks import is_cd
from kvmbox.boot.elf.executable import check_reach, parse_elf
from kvmbox.boot.elf.headers import ELF_MAGIC
from kvmbox.boot.elf.notes import find_note
from kvmbox.boot.entry_state import linux_gdt, linux_state, page_tables
from kvmbox.boot.image import GuestImage, printable
from kvmbox.boot.linux.boot_params import SIZE as PARAMS_SIZE
from kvmbox.boot.linux.boot_params import boot_params
from kvmbox.boot.linux.real_mode_setup import COMMAND_LINE_MAX, kernel_segment, plan_setup
from kvmbox.boot.linux.setup_header import (
    LinuxKernel,
    command_line_max,
    initrd_max,
    is_linux,
    parse_linux,
    starts_in_real_mode,
    too_old,
    version_of,
)
from kvmbox.boot.linux.video_mode import linear_mode
from kvmbox.boot.modules import encoded
from kvmbox.boot.plan import BootContext, BootPlan, Offer, Refusal
from kvmbox.boot.segments import LoadSegment, check_placement, ranges_of

_NOTE_NAME: Final = b"Linux"
_NOT_LINUX: Final = "it is neither a bzImage nor an ELF file with a note of Linux"
# What a vmlinux says nothing of: COMMAND_LINE_SIZE and the limit of initrds, as in every bzImage of today.
_VMLINUX_COMMAND_LINE_MAX: Final = 2047
_VMLINUX_INITRD_MAX: Final = 0x7FFF_FFFF
_LONGEST: Final = DEFAULT_INFO_SIZE - PARAMS_SIZE - 1


class Linux:
    """See the module."""

    name: str = "linux"

    def examine(self, image: GuestImage) -> Offer | Refusal:
        """See Way."""
        if is_linux(image.data) and not is_cd(image.data):
            kind = f"a Linux kernel (boot protocol {version_of(image.data) or 'unknown'})"
            why = too_old(image.data)
            return Offer(kind) if why is None else Refusal(why, "build a bzImage of a later version", kind)
        if find_note(image.data, _NOTE_NAME) is not None:
            return Offer("a Linux vmlinux")
        return Refusal(_NOT_LINUX)

    def plan(self, image: GuestImage, context: BootContext) -> BootPlan:
        """See Way."""
        if context.modules:
            raise UsageError(
                "--module has no meaning for a Linux kernel", hint="give it an initial RAM disk with --initrd"
            )
        if starts_in_real_mode(image.data):
            return _setup(image, context)
        if is_linux(image.data):
            found = _bzimage(image, parse_linux(image), context)
        elif image.data.startswith(ELF_MAGIC):
            found = _vmlinux(image, context)
        else:
            raise image.error(_NOT_LINUX, hint="name a bzImage (vmlinuz) or a vmlinux")
        mode = linear_mode(context.command_line or "")
        line = _command_line(context, min(found.command_line_max, _LONGEST))
        initrd = _place_initrd(image, context, found.taken, found.initrd_max)
        area = place_area(image, found.taken)
        writer = InfoWriter(area)
        params = writer.reserve(PARAMS_SIZE, layout.PAGE_SIZE)
        writer.put(params, boot_params(context, found.header, writer.add_string(line), initrd, mode))
        writes = [linux_gdt(area, found.bits), *writer.writes]
        if found.bits == 64:
            writes += page_tables(area)
        if initrd is not None and context.initrd is not None:
            writes.append((initrd[0], context.initrd.data))
        return BootPlan(
            f"linux{found.bits}",
            linux_state(area, found.bits, found.entry, params),
            found.entry,
            found.segments,
            tuple(writes),
            () if initrd is None else (initrd,),
            video=mode,
        )


class _Found(Value):
    """A kernel, checked: `taken` are the (start, end) of all memory that it is loaded to, or runs in."""

    bits: int
    entry: int
    segments: tuple[LoadSegment, ...]
    taken: tuple[tuple[int, int], ...]
    header: bytes | None
    command_line_max: int
    initrd_max: int


def _setup(image: GuestImage, context: BootContext) -> BootPlan:
    segment = kernel_segment(image, context)
    line = _command_line(context, min(command_line_max(image.data), COMMAND_LINE_MAX))
    initrd = _place_initrd(image, context, ((segment.address, segment.end),), initrd_max(image.data))
    return plan_setup(image, context, segment, line, initrd)


def _bzimage(image: GuestImage, kernel: LinuxKernel, context: BootContext) -> _Found:
    segment = LoadSegment(0, kernel.offset, kernel.size, kernel.address, kernel.size)
    run_end = kernel.run_address + kernel.run_size
    if not context.memory.contains(kernel.run_address, kernel.run_size):
        raise image.error(
            f"it needs {kernel.run_address:#x}..{run_end:#x} to unpack itself and to start, and the guest has"
            f" {context.memory.size / layout.MIB:g} MiB of memory",
            hint=f"give it at least {-(-run_end // layout.MIB)} MiB with --memory",
        )
    check_placement(image, (segment,), context.memory)
    return _Found(
        kernel.bits,
        kernel.entry,
        (segment,),
        ((segment.address, segment.end), (kernel.run_address, run_end)),
        kernel.header,
        kernel.command_line_max,
        kernel.initrd_max,
    )


def _vmlinux(image: GuestImage, context: BootContext) -> _Found:
    elf = parse_elf(image)
    check_reach(image, elf.entry)
    check_placement(image, elf.segments, context.memory)
    return _Found(
        elf.bits,
        elf.entry,
        elf.segments,
        tuple(ranges_of(elf.segments)),
        None,
        _VMLINUX_COMMAND_LINE_MAX,
        _VMLINUX_INITRD_MAX,
    )


def _command_line(context: BootContext, longest: int) -> bytes:
    line = encoded(context.command_line or "", "the command line")
    if len(line) > longest:
        raise UsageError(
            f"the command line has {len(line)} bytes, and this kernel takes {longest}",
            hint="give less with --append",
        )
    return line


def _place_initrd(
    image: GuestImage, context: BootContext, taken: tuple[tuple[int, int], ...], highest: int
) -> tuple[int, int] | None:
    """Its (start, end): on a page boundary, as high as the kernel and memory allow. None if there is none."""
    initrd = context.initrd
    if initrd is None:
        return None
    limit = min(highest + 1, context.memory.regions[0].end)
    lowest = max([layout.HIGH_MEMORY_START, *(end for start, end in taken if start < limit)])
    start = (limit - len(initrd.data)) // layout.PAGE_SIZE * layout.PAGE_SIZE
    if start < lowest:
        raise image.error(
            f"its initial RAM disk '{printable(initrd.name)}' ({len(initrd.data)} bytes) does not fit between"
            f" {lowest:#x}, where the kernel ends, and {limit:#x}",
            hint="give the guest more with --memory",
        )
    return start, start + len(initrd.data)
