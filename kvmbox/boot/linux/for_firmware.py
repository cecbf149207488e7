"""A Linux kernel for firmware to start: setup code filled in, and where QEMU has everything loaded.

The firmware of --bios FILE reads the pieces through fw_cfg, as it does under QEMU. The fields are those that
a boot loader fills in (Linux, Documentation/arch/x86/boot.rst, "Details of Header Fields").
"""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.boot.image import GuestImage, Module, printable
from kvmbox.boot.linux.setup_header import (
    command_line_max,
    filled_in,
    initrd_max,
    is_linux,
    setup_and_kernel,
    too_old,
)
from kvmbox.boot.modules import encoded
from kvmbox.firmware.fw_cfg import FwCfgItem
from kvmbox.firmware.fw_cfg_linux import LINUX_COMMAND_LINE, LINUX_KERNEL, LINUX_SETUP, linux_items


def kernel_for_firmware(
    image: GuestImage, command_line: str | None, initrd: Module | None, memory_size: int
) -> list[FwCfgItem]:
    """The fw_cfg items of `image`. ImageError for what is no bzImage, UsageError for what does not fit."""
    if not is_linux(image.data):
        raise image.error("firmware starts a Linux kernel (bzImage), and it is none")
    why = too_old(image.data)
    if why is not None:
        raise image.error(f"it is a Linux kernel that cannot be booted: {why}", hint="build a bzImage")
    offset, size = setup_and_kernel(image)
    if offset > LINUX_COMMAND_LINE - LINUX_SETUP:
        raise image.error(f"its setup code has {offset} bytes, and firmware has 64 KiB for it")
    line = encoded(command_line or "", "--append")
    longest = command_line_max(image.data)
    if len(line) > longest:
        raise UsageError(f"--append has {len(line)} bytes, and the kernel takes {longest}")
    initrd_data, initrd_address = b"", 0
    if initrd is not None:
        initrd_data = bytes(initrd.data)
        highest = min(initrd_max(image.data) + 1, memory_size, layout.MMIO_HOLE_START)
        initrd_address = (highest - len(initrd_data)) & ~(layout.PAGE_SIZE - 1)
        if initrd_address < LINUX_KERNEL + size:
            raise UsageError(
                f"--initrd '{printable(initrd.name)}' does not fit into memory behind the kernel"
            )
    setup = filled_in(
        image.data[:offset],
        heap_end=LINUX_COMMAND_LINE - LINUX_SETUP,
        command_line=LINUX_COMMAND_LINE,
        initrd=initrd_address,
        initrd_size=len(initrd_data),
    )
    return linux_items(
        bytes(setup), bytes(image.data[offset : offset + size]), line, initrd_data, initrd_address
    )
