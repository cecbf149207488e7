"""What a Multiboot kernel finds on the real /dev/kvm: the chips as a PC's BIOS leaves them."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.boot_images import multiboot2_header, multiboot2_tag, multiboot_header

pytestmark = pytest.mark.kvm

BASE = 0x100000


HEADER = multiboot_header(3, (BASE, BASE, 0, 0, BASE + 32))
HEADER_2 = multiboot2_header(
    multiboot2_tag(2, struct.pack("<4I", BASE, BASE, 0, 0)), multiboot2_tag(3, struct.pack("<I", BASE + 64))
)


def run(tmp_path: Path, code: bytes, *options: str, header: bytes = HEADER) -> int:
    """The status of a Multiboot kernel with this code."""
    image = tmp_path / "kernel"
    image.write_bytes(header + code)
    command = [sys.executable, "-m", "kvmbox", "run", "--timeout", "20", *options, str(image)]
    return subprocess.run(command, check=False, capture_output=True).returncode


EXIT = bytes.fromhex("e6f4 f4")  # out 0xf4,al; hlt


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("e421", 0xF8),  # in al,0x21: the mask of the first 8259
        ("e4a1", 0xFF),
        ("b0e2 e643 e440 243f", 0x34),  # status of counter 0, less OUT and null count: both bytes, mode 2
        ("a023000000", 0xF0),  # mov al,[0x23]: the high byte of the segment of vector 8, IRQ 0
    ],
)
def test_chips_are_as_a_bios_leaves_them(tmp_path: Path, code: str, value: int) -> None:
    status = run(tmp_path, bytes.fromhex(code.replace(" ", "")) + EXIT)
    assert status == (value << 1 | 1) & 0xFF


def test_timer_ticks_where_interrupts_are_let_in(tmp_path: Path) -> None:
    # in al,0x20 after OCW3 (read IRR): wait until the request of IRQ 0 is seen, with interrupts off.
    code = bytes.fromhex("b00a e620 e420 a801 74fa b02a e6f4 f4".replace(" ", ""))
    assert run(tmp_path, code) == 0x2A << 1 | 1


def test_without_firmware_the_chips_are_as_after_a_reset(tmp_path: Path) -> None:
    assert run(tmp_path, bytes.fromhex("e421") + EXIT, "--firmware-tables", "none") == 1


@pytest.mark.parametrize("header", [HEADER, HEADER_2], ids=["multiboot", "multiboot2"])
def test_kernel_may_push_before_it_sets_up_a_stack(tmp_path: Path, header: bytes) -> None:
    # push 0x15; call next; next: pop ebx; pop eax
    assert run(tmp_path, bytes.fromhex("6a15 e800000000 5b 58") + EXIT, header=header) == 43
