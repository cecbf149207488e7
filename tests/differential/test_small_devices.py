"""fw_cfg, pvpanic, port 0xCF9 and the test device against QEMU: the same lines to both, the same answers.

fw_cfg is compared where both machines are told the same: numbers, what is not there, and DMA. QEMU is that of
test_differential.py.
"""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.differential.runner import RTC_BASE, ask, find_qemu, qemu_command

pytestmark = pytest.mark.thorough

needs_qemu = pytest.mark.skipif(
    find_qemu() is None,
    reason="no QEMU with -accel qtest: install qemu-system-xen, or name one in KVMBOX_QEMU",
)

LARGE: Final = bytes(number * 7 & 0xFF for number in range(9000))

# A server with the test device and a large item, which `kvmbox qtest` has no options for.
KVMBOX: Final = (
    sys.executable,
    "-c",
    "from functools import partial\n"
    "from kvmbox.devices import pc_board as board\n"
    "from kvmbox.firmware.fw_cfg import FwCfgItem\n"
    f"item = FwCfgItem(bytes(number * 7 & 0xFF for number in range({len(LARGE)})), 'opt/large')\n"
    "board.BoardOptions = partial(board.BoardOptions, testdev=True, fw_cfg=(item,))\n"
    "from kvmbox.cli.main import entry_point\n"
    "entry_point()\n",
    *("qtest", "--rtc-base", RTC_BASE, "--sandbox", "none"),
)
DEVICES: Final = ("-device", "pvpanic", "-device", "pc-testdev", "-device", "isa-debug-exit")


def both(lines: list[str], machine: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """What kvmbox and QEMU say."""
    ours = ask(KVMBOX, lines)
    theirs = ask([*qemu_command(), *DEVICES, *machine], lines)
    return [answer.text for answer in ours], [answer.text for answer in theirs]


SAME: Final = (0x00, 0x01, 0x02, 0x03, 0x05, 0x06, 0x0E, 0x0F, 0x8002)
ABSENT: Final = (0x07, 0x11, 0x1A, 0x60, 0x3FFF, 0x8005, 0xBFFF, 0xFFFF)
BLOCK: Final = 0x1000
TARGET: Final = 0x2000


def program(seed: int, keys: list[int]) -> list[str]:
    """Selections, reads and DMA requests, in any order."""
    rng = random.Random(seed)
    lines = [f"write {TARGET:#x} 64 0x{'aa' * 64}"]
    while len(lines) < 500:
        key = rng.choice(keys) | rng.choice((0, 0, 0, 0x4000))
        match rng.randrange(8):
            case 0:
                lines.append(f"outw 0x510 {key:#x}")
            case 1 | 2:
                lines += ["inb 0x511"] * rng.randrange(12)
            case 3:
                lines.append(rng.choice(("inb 0x510", "inw 0x510", "outb 0x511 5", "outb 0x510 5")))
            case 4:
                name, size = rng.choice((("inb", 1), ("inw", 2), ("inl", 4)))
                lines.append(f"{name} {0x514 + size * rng.randrange(8 // size):#x}")
            case _:
                control = rng.choice((0x02, 0x04, 0x08, 0x0A, 0x0C, 0x10, 0x18, 0x1E, 0x00)) | key << 16
                length = rng.choice((0, 1, 3, 8, 40, 64))
                target = rng.choice((TARGET, TARGET, TARGET, 0xF0_0000_0000))
                request = struct.pack(">IIQ", control, length, target)
                lines.append(f"write {BLOCK:#x} 16 0x{request.hex()}")
                if rng.randrange(2):
                    lines.append("outl 0x514 0")
                lines.append(f"outl 0x518 {int.from_bytes(BLOCK.to_bytes(4, 'big'), 'little'):#x}")
                lines += [f"read {BLOCK:#x} 16", f"read {TARGET:#x} 64"]
    return lines


@needs_qemu
@pytest.mark.parametrize("seed", range(6))
def test_fw_cfg_gives_what_qemu_gives(seed: int) -> None:
    lines = program(seed, [*SAME, *ABSENT])
    ours, theirs = both(lines)
    for line, our, their in zip(lines, ours, theirs, strict=True):
        assert (line, our) == (line, their)


def directory_lines() -> list[str]:
    return ["outw 0x510 0x19", *["inb 0x511"] * (4 + 64 * 40)]


def file_key(answers: list[str], name: str) -> int:
    """The key of a file, from the answers to `directory_lines`."""
    data = bytes(int(answer.split()[1], 16) for answer in answers[1:])
    for _, key, _, found in struct.iter_unpack(">IHH56s", data[4:]):
        if found.rstrip(b"\0").decode() == name:
            return int(key)
    raise AssertionError(f"no file {name}")


@needs_qemu
def test_large_file_is_read_by_port_and_by_dma_as_in_qemu(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    files = ("-fw_cfg", f"name=opt/large,file={path}")
    servers = KVMBOX, [*qemu_command(), *DEVICES, *files]
    said = []
    for server in servers:
        key = file_key([answer.text for answer in ask(server, directory_lines())], "opt/large")
        request = struct.pack(">IIQ", key << 16 | 0x0A, len(LARGE) + 5, TARGET)
        skip = struct.pack(">IIQ", key << 16 | 0x0C, 8990, 0)
        start = f"outl 0x518 {int.from_bytes(BLOCK.to_bytes(4, 'big'), 'little'):#x}"
        lines = [f"outw 0x510 {key:#x}", *["inb 0x511"] * 300]
        lines += [f"write {BLOCK:#x} 16 0x{request.hex()}", start, f"read {TARGET:#x} {len(LARGE) + 6}"]
        lines += [f"write {BLOCK:#x} 16 0x{skip.hex()}", start, *["inb 0x511"] * 12, f"read {BLOCK:#x} 4"]
        said.append([answer.text for answer in ask(server, lines)])
    assert said[0] == said[1]
    assert said[0][1:4] == ["OK 0x0000", "OK 0x0007", "OK 0x000e"]


def program_for_testdev(seed: int) -> list[str]:
    rng = random.Random(seed)
    lines = ["irq_intercept_in ioapic"]
    while len(lines) < 500:
        name, size = rng.choice((("b", 1), ("w", 2), ("l", 4)))
        value = rng.getrandbits(8 * size)
        port = rng.choice((0xE0, 0xE8)) + size * rng.randrange(4 // size)
        address = 0xFF00_0000 + size * rng.choice((0, 1, 2, 3, 0x4000 // size, (1 << 16) // size - 1))
        match rng.randrange(5):
            case 0 if not port <= 0xE9 < port + size:  # the debug console is there
                lines.append(f"out{name} {port:#x} {value:#x}")
            case 1 if not port <= 0xE9 < port + size:
                lines.append(f"in{name} {port:#x}")
            case 2:
                lines.append(f"write{name} {address:#x} {value:#x}")
            case 3:
                lines.append(f"read{name} {address:#x}")
            case 4:
                line = rng.choice((3, 5, 7, 9, 10, 11))
                lines.append(f"outb {0x2000 + line:#x} {rng.choice((0, 0, 1, 255))}")
    return lines


@needs_qemu
@pytest.mark.parametrize("seed", range(4))
def test_testdev_gives_what_qemu_gives(seed: int) -> None:
    lines = program_for_testdev(seed)
    ours = ask(KVMBOX, lines)
    theirs = ask([*qemu_command(), *DEVICES], lines)
    for line, our, their in zip(lines, ours, theirs, strict=True):
        assert (line, our.irqs, our.text) == (line, their.irqs, their.text)


@needs_qemu
def test_pvpanic_and_debug_exit_read_as_in_qemu() -> None:
    ours, theirs = both(["inb 0x505", "outb 0x505 0xf8", "inb 0x505", "inb 0x501", "inw 0x501"])
    assert ours == theirs


@needs_qemu
def test_reset_control_reads_back_as_on_ich9() -> None:
    values = (0x00, 0x02, 0x0A, 0x08, 0xFB, 0x01)
    lines = [line for value in values for line in (f"outb 0xcf9 {value:#x}", "inb 0xcf9")]
    lines += ["outl 0xcf8 0x80000600", "inb 0xcf9"]  # the address register of PCI, not this one
    ours, theirs = both(lines, machine=("-machine", "q35"))
    assert ours == theirs
