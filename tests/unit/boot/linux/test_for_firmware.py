"""What firmware is told of the Linux kernel that it is to start."""

from __future__ import annotations

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.boot.image import GuestImage, Module
from kvmbox.boot.linux.for_firmware import kernel_for_firmware
from kvmbox.firmware import fw_cfg_linux
from tests.support.boot_images import bzimage

MEMORY = 64 * layout.MIB


def told(image: bytes, line: str | None = None, initrd: bytes | None = None) -> dict[int, bytes]:
    """Items by their keys."""
    module = None if initrd is None else Module("initrd", initrd)
    items = kernel_for_firmware(GuestImage("/boot/vmlinuz", image), line, module, MEMORY)
    return {item.key: item.data for item in items}


def number(data: bytes, offset: int = 0, size: int = 4) -> int:
    return int.from_bytes(data[offset : offset + size], "little")


def test_kernel_for_firmware_is_cut_behind_its_setup_code() -> None:
    image = bzimage(b"kernel!!" * 64, sectors=3)

    items = told(image)

    assert len(items[fw_cfg_linux.SETUP_DATA]) == number(items[fw_cfg_linux.SETUP_SIZE]) == 4 * 512
    assert items[fw_cfg_linux.KERNEL_DATA] == b"kernel!!" * 64
    assert number(items[fw_cfg_linux.KERNEL_SIZE]) == 512
    assert number(items[fw_cfg_linux.KERNEL_ADDR]) == layout.HIGH_MEMORY_START
    assert items[fw_cfg_linux.CMDLINE_DATA] == b"\0"
    assert number(items[fw_cfg_linux.INITRD_SIZE]) == 0


def test_kernel_for_firmware_has_the_fields_filled_in_that_a_boot_loader_fills_in() -> None:
    items = told(bzimage(), "console=ttyS0", b"r" * 5000)
    setup = items[fw_cfg_linux.SETUP_DATA]

    place = MEMORY - 2 * layout.PAGE_SIZE
    assert items[fw_cfg_linux.INITRD_DATA] == b"r" * 5000
    assert number(items[fw_cfg_linux.INITRD_ADDR]) == number(setup, 0x218) == place
    assert number(items[fw_cfg_linux.INITRD_SIZE]) == number(setup, 0x21C) == 5000
    assert items[fw_cfg_linux.CMDLINE_DATA] == b"console=ttyS0\0"
    assert number(items[fw_cfg_linux.CMDLINE_SIZE]) == 14
    assert number(items[fw_cfg_linux.CMDLINE_ADDR]) == number(setup, 0x228)
    assert (setup[0x210], setup[0x211]) == (0xFF, 0x81)
    # The heap ends where the command line begins.
    assert number(items[fw_cfg_linux.SETUP_ADDR]) + 0x200 + number(setup, 0x224, 2) == number(setup, 0x228)


def test_initrd_for_firmware_stays_below_the_limit_of_the_kernel() -> None:
    image = bzimage(fields={0x22C: (0x2F_FFFF, 4)})

    assert number(told(image, initrd=b"r")[fw_cfg_linux.INITRD_ADDR]) == 0x2F_F000


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"\x7fELF", "firmware starts a Linux kernel"),
        (bzimage(version=0x205), r"its boot protocol is 2\.05"),
        (bzimage(sectors=128), "its setup code has 66048 bytes"),
    ],
)
def test_image_that_firmware_cannot_start_is_refused(image: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        told(image)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="--append has 101 bytes, and the kernel takes 100"):
        told(bzimage(), "a" * 101)
    with pytest.raises(UsageError, match="--initrd 'initrd' does not fit"):
        told(bzimage(), initrd=bytes(MEMORY))
