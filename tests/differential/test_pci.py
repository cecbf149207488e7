"""PCI's configuration spaces against QEMU: the same lines to both, the same answers.

Both have an entropy device at 00:03.0. QEMU has no firmware here, so what kvmbox's would have set up is taken
back first. Of the bridges the header and the router are compared: what is behind is of chips that are not
there. QEMU is that of test_differential.py.
"""

from __future__ import annotations

import random
import sys
from typing import Final

import pytest

from tests.differential.runner import RTC_BASE, ask, find_qemu, qemu_command

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(
        find_qemu() is None,
        reason="no QEMU with -accel qtest: install qemu-system-xen, or name one in KVMBOX_QEMU",
    ),
]

# A server with a bus, which `kvmbox qtest` has no option for.
KVMBOX: Final = (
    sys.executable,
    "-c",
    "from kvmbox.contract.device_spec import Medium\n"
    "from kvmbox.devices.virtio.board import virtio_rng\n"
    "from kvmbox.devices.pci.board import with_pci\n"
    "from kvmbox.devices.virtio.pci_functions import on_pci\n"
    "from kvmbox.contract.device_spec import DeviceSpec\n"
    "from kvmbox.host.disk.transfers import BytesStore\n"
    "from kvmbox.tools.qtest import start_server as serve\n"
    "whole, machine = serve.whole_board, serve.BareMachine\n"
    "serve.whole_board = lambda options: with_pci([*whole(options), on_pci(virtio_rng())])\n"
    "serve.BareMachine = lambda *given: machine(*given, stores={'entropy': BytesStore(b'')})\n"
    "from kvmbox.cli.main import entry_point\n"
    "entry_point()\n",
    *("qtest", "--rtc-base", RTC_BASE, "--sandbox", "none"),
)
DEVICES: Final = (
    "-device",
    "virtio-rng-pci,addr=3,vectors=2,rng=entropy",
    "-object",
    "rng-builtin,id=entropy",
)

HOST, ISA, RNG = 0x00, 0x08, 0x18
ABSENT: Final = (0x20, 0x19, 0xF8, 0x0100, 0xFF18)
IDENTITY: Final = (0x00, 0x08, 0x2C, 0x30, 0x38)
WRITABLE: Final = {
    HOST: (0x0C, 0x10, 0x14, 0x3C),
    ISA: (0x0C, 0x10, 0x24, 0x3C, 0x60),
    RNG: (0x0C, 0x10, 0x14, 0x18, 0x1C, 0x20, 0x24, 0x3C),
}
SIZES: Final = {1: "b", 2: "w", 4: "l"}


def select(function: int, register: int, enable: int = 1 << 31) -> str:
    return f"outl 0xcf8 {enable | function << 8 | register & 0xFC:#x}"


def start() -> list[str]:
    """The state that a QEMU has without firmware."""
    lines = []
    for function in (HOST, ISA, RNG):
        lines += [select(function, 4), "outw 0xcfc 0", select(function, 0x3C), "outb 0xcfc 0"]
    for index in range(6):
        lines += [select(RNG, 0x10 + 4 * index), "outl 0xcfc 0"]
    return [*lines, select(ISA, 0x60), "outl 0xcfc 0x80808080"]


def moved(rng: random.Random) -> list[str]:
    """The legacy ports at another place: they answer there, as long as the command register lets them."""
    base = rng.choice((0xC000, 0xD000, 0xFF80, 0x1000))
    lines = [select(RNG, 0x10), f"outl 0xcfc {base | rng.randrange(4):#x}", select(RNG, 4), "outw 0xcfc 1"]
    for port in (base, rng.choice((0xC000, 0xD000, 0xFF80, 0x1000))):
        lines += [f"outb {port + 0x12:#x} {rng.choice((0, 1, 3))}", f"inb {port + 0x12:#x}"]
        lines += [f"inw {port + 0x0E:#x}", f"inb {port + 0x13:#x}"]
    return [*lines, select(RNG, 4), f"outw 0xcfc {rng.choice((0, 1))}", f"inb {base + 0x12:#x}"]


def program(seed: int) -> list[str]:
    """Reads of all registers, and writes to those that are the same chip's, in any size."""
    rng = random.Random(seed)
    lines = start()
    while len(lines) < 1500:
        if rng.randrange(12) == 0:
            lines += moved(rng)
        function = rng.choice((HOST, ISA, RNG, RNG, RNG))
        choice = rng.randrange(10)
        if choice == 0:
            function = rng.choice(ABSENT)
            register = rng.randrange(0, 256, 4)
        elif choice == 1:
            register = rng.choice(IDENTITY)
        elif choice == 2:
            register = 4
        else:
            register = rng.choice(WRITABLE[function])
        size = rng.choice((1, 2, 4))
        place = rng.randrange(0, 4, size)
        if register == 4:
            size, place = 2, 0
        lines.append(select(function, register, 0 if rng.randrange(20) == 0 else 1 << 31))
        port = f"{0xCFC + place:#x}"
        if rng.randrange(2):
            value = rng.choice((0, 0xFFFF_FFFF, rng.getrandbits(32), 1 << rng.randrange(32)))
            lines.append(f"out{SIZES[size]} {port} {value & (1 << 8 * size) - 1:#x}")
        lines.append(f"in{SIZES[size]} {port}")
        if rng.randrange(20) == 0:
            lines += [
                "inl 0xcf8",
                f"outb 0xcf8 {rng.getrandbits(8):#x}",
                f"outw 0xcfa {rng.getrandbits(16):#x}",
                "inl 0xcf8",
            ]
    return lines


@pytest.mark.parametrize("seed", range(8))
def test_configuration_spaces_are_those_of_qemu(seed: int) -> None:
    lines = program(seed)
    ours = ask(KVMBOX, lines)
    theirs = ask([*qemu_command(), *DEVICES], lines)
    last = ""
    for line, our, their in zip(lines, ours, theirs, strict=True):
        last = line if line.startswith("outl 0xcf8") else last
        assert (last, line, our.text) == (last, line, their.text)
