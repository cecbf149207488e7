"""The setup header of a Linux kernel image (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").

A bzImage is a boot sector, setup code that runs in real mode, and the kernel proper. The header lies across
the first two and says what the loader must know. kvmbox enters the kernel proper and does not run the setup
code, which needs a BIOS. Version 2.06 is the first whose header says all that such a loader needs.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import ImageError
from kvmbox.base.value_classes import Value
from kvmbox.boot.image import GuestImage

MAGIC: Final = b"HdrS"
HEADER_START: Final = 0x1F1
OLDEST_VERSION: Final = 0x206

_MAGIC_OFFSET: Final = 0x202
_SECTOR: Final = 512
_OLD_SETUP_SECTORS: Final = 4  # what a setup_sects of 0 means
_PARAGRAPH: Final = 16  # the unit of syssize
_LOADED_HIGH: Final = 1 << 0  # loadflags: a bzImage
_KERNEL_64: Final = 1 << 0  # xloadflags: XLF_KERNEL_64
ENTRY_64: Final = 0x200  # from the start of the kernel proper

# The offsets in the file of the fields that count, and their sizes.
_SETUP_SECTORS: Final = (0x1F1, 1)
_SYSSIZE: Final = (0x1F4, 4)
_JUMP_OFFSET: Final = 0x201  # the header ends at 0x202 plus the byte here
_VERSION: Final = (0x206, 2)
_LOAD_FLAGS: Final = (0x211, 1)
_CODE32_START: Final = (0x214, 4)
_INITRD_ADDR_MAX: Final = (0x22C, 4)
_KERNEL_ALIGNMENT: Final = (0x230, 4)
_RELOCATABLE: Final = (0x234, 1)
_XLOADFLAGS: Final = (0x236, 2)
_CMDLINE_SIZE: Final = (0x238, 4)
_PREF_ADDRESS: Final = (0x258, 8)
_INIT_SIZE: Final = (0x260, 4)

_VERSION_PREF_ADDRESS: Final = 0x20A  # and init_size
_VERSION_XLOADFLAGS: Final = 0x20C
_MAX_ALIGNMENT: Final = layout.GIB
_AGAIN: Final = "build or copy it again"

# The offsets of fields that a loader fills in, and what goes into them.
_TYPE_OF_LOADER: Final = 0x210
_RAMDISK: Final = 0x218  # ramdisk_image and ramdisk_size
_HEAP_END: Final = 0x224
_COMMAND_LINE: Final = 0x228
_NO_ASSIGNED_LOADER: Final = 0xFF
_CAN_USE_HEAP: Final = 0x80
_HEAP_SPARE: Final = 0x200  # heap_end_ptr counts from the setup code's entry, 0x200 behind its start


class LinuxKernel(Value):
    """A kernel image. `header` is what goes into the boot parameters at HEADER_START.

    The kernel proper is `size` bytes of the file from `offset`. It goes to `address`, and takes `run_size`
    bytes of memory from `run_address` on. `bits` (32 or 64) is the mode of its `entry`.
    """

    version: int
    header: bytes
    offset: int
    size: int
    address: int
    run_address: int
    run_size: int
    bits: int
    entry: int
    initrd_max: int
    command_line_max: int


def is_linux(data: bytes) -> bool:
    """Whether `data` begins like a Linux kernel with a setup header."""
    return data[_MAGIC_OFFSET : _MAGIC_OFFSET + len(MAGIC)] == MAGIC


def version_of(data: bytes) -> str | None:
    """The version of the boot protocol, as "2.15"; None if the file is cut short before it."""
    if len(data) < sum(_VERSION):
        return None
    version = _field(data, _VERSION)
    return f"{version >> 8}.{version & 0xFF:02}"


def too_old(data: bytes) -> str | None:
    """Why a kernel with a setup header is of a kind that is not booted; None if it may be."""
    if len(data) < sum(_LOAD_FLAGS):
        return "the file is cut short within its setup header"
    if _field(data, _VERSION) < OLDEST_VERSION:
        return f"its boot protocol is {version_of(data)}; accepted are 2.06 and later"
    if not _field(data, _LOAD_FLAGS) & _LOADED_HIGH:
        return "a zImage has to be loaded at 64 KiB by its own setup code"
    return None


def starts_in_real_mode(data: bytes) -> bool:
    """Whether this is a kernel image without a 32-bit entry: its setup code has to run, over a BIOS."""
    return (
        is_linux(data)
        and too_old(data) is None
        and len(data) >= sum(_CMDLINE_SIZE)
        and _field(data, _CODE32_START) < layout.HIGH_MEMORY_START
    )


def command_line_max(data: bytes) -> int:
    """Bytes that the kernel in `data`, which `starts_in_real_mode`, takes as its command line."""
    return _field(data, _CMDLINE_SIZE)


def initrd_max(data: bytes) -> int:
    """The highest address that an initial RAM disk may have there."""
    return _field(data, _INITRD_ADDR_MAX)


def setup_and_kernel(image: GuestImage) -> tuple[int, int]:
    """Bytes of boot sector and setup code, and of the kernel proper behind. ImageError if it is cut short."""
    sectors = image.data[_SETUP_SECTORS[0]] or _OLD_SETUP_SECTORS
    offset = (sectors + 1) * _SECTOR
    return offset, _kernel_size(image, offset)


def filled_in(setup: bytes, *, heap_end: int, command_line: int, initrd: int, initrd_size: int) -> bytearray:
    """Setup code with what a loader tells it. `heap_end` is in its segment; the other places are physical."""
    made = bytearray(setup)
    made[_TYPE_OF_LOADER] = _NO_ASSIGNED_LOADER
    made[_LOAD_FLAGS[0]] |= _CAN_USE_HEAP
    struct.pack_into("<II", made, _RAMDISK, initrd, initrd_size)
    struct.pack_into("<H", made, _HEAP_END, heap_end - _HEAP_SPARE)
    struct.pack_into("<I", made, _COMMAND_LINE, command_line)
    return made


def parse_linux(image: GuestImage) -> LinuxKernel:
    """The kernel in `image`, which `is_linux`, and has an entry in protected mode. Raises ImageError."""
    data = image.data
    why = too_old(data)
    if why is not None:
        raise image.error(f"it is a Linux kernel that cannot be booted: {why}", hint="build a bzImage")
    version = _field(data, _VERSION)
    end = _MAGIC_OFFSET + data[_JUMP_OFFSET]
    needed = sum(_INIT_SIZE) if version >= _VERSION_PREF_ADDRESS else sum(_CMDLINE_SIZE)
    if end < needed:
        raise _damaged(
            image, f"it ends at byte {end:#x}, and version {version_of(data)} goes to {needed:#x} at least"
        )
    offset, size = setup_and_kernel(image)
    code32 = _field(data, _CODE32_START)
    address, run_address, run_size = _places(image, version, size, code32)
    run_end = run_address + run_size
    if run_address < layout.HIGH_MEMORY_START or run_end > layout.MMIO_HOLE_START:
        raise image.error(
            f"it is a Linux kernel that wants to run at {run_address:#x}..{run_end:#x}: accepted is"
            f" {layout.HIGH_MEMORY_START:#x}..{layout.MMIO_HOLE_START:#x}",
            hint=_AGAIN,
        )
    bits = 64 if version >= _VERSION_XLOADFLAGS and _field(data, _XLOADFLAGS) & _KERNEL_64 else 32
    entry = address + (ENTRY_64 if bits == 64 else 0)
    if entry >= address + size:
        raise image.error("it is a Linux image that ends before its entry", hint=_AGAIN)
    header = bytearray(data[HEADER_START:end])
    struct.pack_into("<I", header, _CODE32_START[0] - HEADER_START, address)
    return LinuxKernel(
        version,
        bytes(header),
        offset,
        size,
        address,
        run_address,
        run_size,
        bits,
        entry,
        _field(data, _INITRD_ADDR_MAX),
        _field(data, _CMDLINE_SIZE),
    )


def _kernel_size(image: GuestImage, offset: int) -> int:
    """Bytes of the kernel proper: syssize says them, rounded up; what follows may be a signature."""
    available = len(image.data) - offset
    stated = _field(image.data, _SYSSIZE) * _PARAGRAPH
    if available <= 0 or stated >= available + _PARAGRAPH:
        raise image.error(
            f"it is a Linux kernel cut short: the kernel ends at byte {offset + max(stated, 1)}, and the file"
            f" has {len(image.data)}",
            hint=_AGAIN,
        )
    return min(stated, available) if stated else available


def _places(image: GuestImage, version: int, size: int, code32: int) -> tuple[int, int, int]:
    """Where the kernel is loaded, where it runs then, and the bytes that it takes there."""
    data = image.data
    has_preference = version >= _VERSION_PREF_ADDRESS
    preferred = _field(data, _PREF_ADDRESS) if has_preference else code32
    room = max(_field(data, _INIT_SIZE) if has_preference else 0, size)
    if not _field(data, _RELOCATABLE):
        # It moves itself to the preferred address, whatever it was loaded at.
        return code32, preferred if has_preference else code32, room
    align = _field(data, _KERNEL_ALIGNMENT)
    if align & (align - 1) or not 0 < align <= _MAX_ALIGNMENT:
        raise _damaged(image, f"its kernel_alignment {align:#x} is no power of two up to {_MAX_ALIGNMENT:#x}")
    address = -(-max(preferred, layout.HIGH_MEMORY_START) // align) * align
    return address, address, room


def _field(data: bytes, place: tuple[int, int]) -> int:
    offset, size = place
    return int.from_bytes(data[offset : offset + size], "little")


def _damaged(image: GuestImage, why: str) -> ImageError:
    return image.error(f"it is a Linux kernel with a damaged setup header: {why}", hint=_AGAIN)
