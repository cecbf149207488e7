"""Files that are no guest of kvmbox's: what each is, exactly, and what its owner can do about it. Pure.

Magic numbers are in the formats' own specifications, named beside them; a file that only begins like one of
them is told apart where a second field can be checked.
"""

from __future__ import annotations

from typing import Final

from kvmbox.base.value_classes import Value


class Foreign(Value):
    """A recognised file that is not accepted. `kind` comes with its article; `hint` says what to do."""

    kind: str
    hint: str


_KERNEL_HINT: Final = "name the kernel's ELF file"
_MULTIBOOT_HINT: Final = "give the kernel a Multiboot header, or an ELF entry of its own"

# PE/COFF: the offset of "PE\0\0" is at 0x3C; machine, then, in the optional header, the subsystem.
_PE_OFFSET: Final = 0x3C
_PE_MACHINES: Final = {0x14C: "i386", 0x8664: "x86-64", 0xAA64: "AArch64", 0x1C2: "Arm", 0x5064: "RISC-V 64"}
_PE_SUBSYSTEM_OFFSET: Final = 4 + 20 + 68  # signature, COFF header, optional header up to Subsystem
_EFI_SUBSYSTEMS: Final = {10: "an EFI application", 11: "an EFI driver", 12: "an EFI run-time driver"}

# Documentation/arch/arm64/booting.rst, Documentation/arch/riscv/boot-image-header.rst
_OTHER_KERNELS: Final = ((b"ARM\x64", "AArch64"), (b"RSC\x05", "RISC-V"))
_OTHER_KERNEL_OFFSET: Final = 56

_COMPRESSED: Final = (
    (b"\x5d\0\0", "lzma", "unlzma"),
    (b"\x04\x22\x4d\x18", "lz4", "unlz4"),
    (b"\x02\x21\x4c\x18", "lz4 (legacy format)", "unlz4"),
    (b"\x89LZO\0\r\n\x1a\n", "lzop", "lzop -d"),
)

_OTHERS: Final = (
    (0, b"QFI\xfb", "a qcow2 disk image", "convert it: qemu-img convert -O raw; a guest gets it by --disk"),
    (0, b"KDMV", "a VMDK disk image", "convert it: qemu-img convert -O raw"),
    (0x8001, b"CD001", "an ISO 9660 image that ends too early", "build or copy it again"),
    (0, b"kvmbox\x1aS", "a snapshot", "kvmbox run --from starts it"),  # kvmbox/parts/snapshot/file_layout.py
    (0, b"#!", "a script", _KERNEL_HINT),
    (0, b"!<arch>\n", "an archive of object files", "link it with ld, and name the result"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it, and name the kernel's ELF file"),
    (0, b"\x27\x05\x19\x56", "a U-Boot image (uImage)", "name the ELF file that it was made from"),
    (0, b"\xd0\x0d\xfe\xed", "a flattened device tree", _KERNEL_HINT),
    (0, b"\xcf\xfa\xed\xfe", "a Mach-O executable", "build it as ELF: a cross compiler for x86_64-elf"),
    (0, b"\xce\xfa\xed\xfe", "a Mach-O executable", "build it as ELF: a cross compiler for i686-elf"),
    (0, b"070701", "a cpio archive (an initramfs)", "load it with --module, and name a kernel"),
)


def foreign_file(data: bytes) -> Foreign | None:
    """What `data` is, if it is something else than an executable that kvmbox knows; None if nobody knows."""
    for magic, architecture in _OTHER_KERNELS:
        if data[_OTHER_KERNEL_OFFSET : _OTHER_KERNEL_OFFSET + len(magic)] == magic:
            return Foreign(f"a Linux kernel for {architecture}", "build it for i386 or x86-64")
    if data.startswith(b"MZ"):
        return _portable_executable(data)
    for magic, name, command in _COMPRESSED:
        if data.startswith(magic):
            return Foreign(f"{name}-compressed data", f"decompress it first, with {command}")
    for offset, magic, kind, hint in _OTHERS:
        if data[offset : offset + len(magic)] == magic:
            return Foreign(kind, hint)
    return None


def _portable_executable(data: bytes) -> Foreign:
    start = int.from_bytes(data[_PE_OFFSET : _PE_OFFSET + 4], "little")
    if data[start : start + 4] != b"PE\0\0":
        return Foreign("a DOS executable", "there is no DOS; a flat 16-bit image needs --boot real")
    machine = int.from_bytes(data[start + 4 : start + 6], "little")
    field = start + _PE_SUBSYSTEM_OFFSET
    subsystem = int.from_bytes(data[field : field + 2], "little")
    kind = _EFI_SUBSYSTEMS.get(subsystem, "a Windows executable")
    of = _PE_MACHINES.get(machine, f"machine {machine:#x}")
    firmware = "there is no EFI firmware" if subsystem in _EFI_SUBSYSTEMS else "kvmbox boots kernels"
    return Foreign(f"{kind} (PE, {of})", f"{firmware}; {_MULTIBOOT_HINT}")
