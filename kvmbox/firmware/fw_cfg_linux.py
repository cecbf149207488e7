"""A Linux kernel for firmware to load, as items of fw_cfg: keys as in `fw_cfg`."""

from __future__ import annotations

from typing import Final

from kvmbox.firmware.fw_cfg import FwCfgItem, number

KERNEL_ADDR: Final = 0x07
KERNEL_SIZE: Final = 0x08
INITRD_ADDR: Final = 0x0A
INITRD_SIZE: Final = 0x0B
KERNEL_DATA: Final = 0x11
INITRD_DATA: Final = 0x12
CMDLINE_ADDR: Final = 0x13
CMDLINE_SIZE: Final = 0x14
CMDLINE_DATA: Final = 0x15
SETUP_ADDR: Final = 0x16
SETUP_SIZE: Final = 0x17
SETUP_DATA: Final = 0x18

# Where QEMU has a Linux kernel's pieces loaded (hw/i386/x86-common.c), which firmware does.
LINUX_SETUP: Final = 0x1_0000
LINUX_COMMAND_LINE: Final = 0x2_0000
LINUX_KERNEL: Final = 0x10_0000


def linux_items(
    setup: bytes, kernel: bytes, command_line: bytes, initrd: bytes = b"", initrd_address: int = 0
) -> list[FwCfgItem]:
    """A Linux kernel for firmware to load: its `setup` sectors, which the caller has filled in, and the rest.

    `command_line` has no NUL. `initrd_address` is guest-physical.
    """
    text = command_line + b"\0"
    return [
        number(SETUP_ADDR, LINUX_SETUP, 4),
        number(SETUP_SIZE, len(setup), 4),
        FwCfgItem(setup, key=SETUP_DATA),
        number(KERNEL_ADDR, LINUX_KERNEL, 4),
        number(KERNEL_SIZE, len(kernel), 4),
        FwCfgItem(kernel, key=KERNEL_DATA),
        number(CMDLINE_ADDR, LINUX_COMMAND_LINE, 4),
        number(CMDLINE_SIZE, len(text), 4),
        FwCfgItem(text, key=CMDLINE_DATA),
        number(INITRD_ADDR, initrd_address, 4),
        number(INITRD_SIZE, len(initrd), 4),
        FwCfgItem(initrd, key=INITRD_DATA),
    ]
