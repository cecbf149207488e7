"""The window of a VGA that is out of guest memory, from outside: writes that KVM splits."""

from __future__ import annotations

from typing import Final

import pytest

from tests.support.real_mode import DEBUGCON, IDLE, SHUTDOWN, out
from tests.support.runs import Images, error_lines, run_to_end

pytestmark = pytest.mark.kvm

SEQUENCER, GRAPHICS, DAC = 0x3C4, 0x3CE, 0x3C8
PLANAR: Final = b"".join(
    out(port, index | value << 8, 2)
    for port, index, value in [
        (SEQUENCER, 4, 6),
        (SEQUENCER, 2, 0xF),
        (GRAPHICS, 5, 0),
        (GRAPHICS, 6, 5),
        (GRAPHICS, 8, 0xFF),
    ]
)
"""64 KiB of four planes at 0xA0000."""
WINDOW: Final = bytes.fromhex("b800a0 8ed8")  # mov ax,0xa000; mov ds,ax


def place(offset: int) -> bytes:
    return offset.to_bytes(2, "little")


def tell(offset: int, count: int) -> bytes:
    """Send bytes of the window to the debug console: mov dx,port; mov al,[offset]; out dx,al for each."""
    send = b"".join(b"\xa0" + place(offset + step) + b"\xee" for step in range(count))
    return b"\xba" + place(DEBUGCON) + send


@pytest.mark.parametrize("options", [(), ("--inject", "VGA:all-ones=0.000000001")], ids=["late", "prompt"])
def test_write_across_the_end_of_a_page_arrives_whole(images: Images, options: tuple[str, ...]) -> None:
    code = PLANAR + WINDOW
    for number in range(1, 4):
        code += bytes.fromhex("66c706") + place(0x1000 * number - number) + b"1234"  # mov dword [...],"1234"
    for number in range(1, 4):
        code += tell(0x1000 * number - number, 4)
    status, output, messages = run_to_end(images.run(code + SHUTDOWN + IDLE, *options))
    assert (status, output, error_lines(messages)) == (0, b"1234" * 3, [])
