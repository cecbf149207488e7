"""Linear frame buffers from outside: what guests set up in each way, and the picture that comes of it."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path
from typing import Any, Final

import pytest

from kvmbox import Machine
from kvmbox.base import layout
from kvmbox.firmware.video_modes import MODES, mode_block
from tests.support.family import device_processes
from tests.support.guest_picture import guest_picture
from tests.support.patience import patience
from tests.support.real_mode import (
    DEBUGCON,
    HALT_FOR_EVER,
    IDLE,
    RESET_8042,
    SHUTDOWN,
    out,
    say,
    wait_input,
)
from tests.support.runs import DESIGNS, Images, Run, error_lines, run_to_end
from tests.support.selection import first_per_commit

pytestmark = pytest.mark.kvm

PATIENCE_S: Final = patience(60.0)
XRES, YRES, BPP, ENABLE, BANK = range(1, 6)
WINDOW: Final = bytes.fromhex("b800a0 8ed8")  # mov ax,0xa000; mov ds,ax
SHOW_BYTE: Final = bytes.fromhex("a01000") + b"\xba" + DEBUGCON.to_bytes(2, "little") + b"\xee"
"""mov al,[0x10]; out to the debug console."""


def store(byte: bytes) -> bytes:
    """mov byte [0x10],byte."""
    return bytes.fromhex("c6061000") + byte


def vbe(index: int, value: int) -> bytes:
    return out(layout.VBE_PORT, index, 2) + out(layout.VBE_PORT + 1, value, 2)


def mode(width: int, height: int, depth: int, flags: int = 0) -> bytes:
    return vbe(XRES, width) + vbe(YRES, height) + vbe(BPP, depth) + vbe(ENABLE, 0x41 | flags)


def picture_of(guest: str, **options: object) -> tuple[int, int, bytes]:
    """The picture at the end of a guest, which must end well."""
    with Machine(guest, timeout=PATIENCE_S, **options) as vm:  # type: ignore[arg-type]  # any options
        result = vm.wait()
        screen: Any = vm.screen
    picture = screen.picture
    assert (result.status, b"the picture is there" in result.output) == (0, True)
    assert picture is not None
    assert picture.png().startswith(b"\x89PNG")
    return picture.width, picture.height, picture.rgb


# --- Ways to a picture ------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [8, 15, 16, 24, 32])
def test_guest_that_drives_the_display_interface_has_its_picture(depth: int) -> None:
    found = picture_of("vbe", append=f"320 200 {depth}")
    assert found == (320, 200, guest_picture(320, 200, depth))


@pytest.mark.parametrize("arguments", first_per_commit(DESIGNS), ids=" ".join)
def test_guest_proves_its_frame_buffer_in_every_design(arguments: tuple[str, ...]) -> None:
    status, output, messages = run_to_end(
        Run(*arguments, "--append", "320 200 32", "--screen", "never", "vbe")
    )
    assert (status, output, error_lines(messages)) == (0, b"vbe: the picture is there\n", [])


@pytest.mark.parametrize(
    ("guest", "width", "height", "depth"),
    [("framebuffer", 800, 600, 32), ("framebuffer2", 1024, 768, 24)],
)
def test_multiboot_kernel_has_the_mode_that_it_asks_for(
    guest: str, width: int, height: int, depth: int
) -> None:
    assert picture_of(guest) == (width, height, guest_picture(width, height, depth))


def test_boot_sector_sets_a_mode_by_the_bios_and_fills_it_bank_by_bank() -> None:
    width, height, rgb = picture_of("bootvbe")
    assert (width, height) == (640, 480)
    memory = b"".join(
        struct.pack("<32768H", *(bank + 0x0301 * word & 0xFFFF for word in range(32768))) for bank in range(6)
    )
    shown = b"".join(memory[16 + 704 * y :][:640] for y in range(2, 482))
    levels = [value << 2 | (value & 1) * 3 for value in range(64)]
    colors = [(levels[i >> 2], levels[i >> 2 ^ 63], levels[i & 63]) for i in range(256)]
    assert rgb == b"".join(bytes(colors[index]) for index in shown)


# --- The memory -------------------------------------------------------------------------------------------


def test_piece_at_0xa0000_is_ram_again_when_the_interface_is_off(images: Images) -> None:
    shown = mode(640, 480, 8) + WINDOW + vbe(BANK, 2) + store(b"F") + SHOW_BYTE
    code = WINDOW + store(b"R") + SHOW_BYTE + shown + vbe(ENABLE, 0) + store(b"S") + SHOW_BYTE
    code += mode(640, 480, 8, 0x80) + vbe(BANK, 2) + SHOW_BYTE + SHUTDOWN + IDLE
    assert run_to_end(images.run(code, "--screen", "never"))[:2] == (0, b"RFSF")


@pytest.mark.parametrize(("flags", "shown"), [(0, (32, 144, 200)), (0x20, (200, 100, 50))])
def test_dac_has_6_bits_or_8_as_the_mode_says(
    images: Images, flags: int, shown: tuple[int, int, int]
) -> None:
    colour = out(0x3C8, 0) + out(0x3C9, 200) + out(0x3C9, 100) + out(0x3C9, 50)
    guest = images.write(mode(64, 8, 8, flags) + colour + HALT_FOR_EVER)
    with Machine(guest, boot="real", timeout=PATIENCE_S) as vm:
        vm.wait()
        screen: Any = vm.screen
    assert screen.picture.pixel(0, 0) == shown


def test_reset_shows_ram_and_clears_the_frame_buffer(images: Images) -> None:
    # CMOS RAM keeps: index 0x60 counts the boots, and the second one looks.
    count = bytes.fromhex("b060 e670 e471 40 e671 3c02 74")
    first = mode(640, 480, 8) + WINDOW + store(b"F") + SHOW_BYTE + RESET_8042
    look = bytes.fromhex("80061000") + b"0"  # add byte [0x10],'0'
    second = WINDOW + look + SHOW_BYTE + mode(640, 480, 8, 0x80) + look + SHOW_BYTE + SHUTDOWN + IDLE
    code = count + bytes((len(first),)) + first + second
    assert run_to_end(images.run(code, "--screen", "never"))[:2] == (0, b"F00")


def test_lost_process_is_replaced_in_the_midst_of_a_picture(images: Images) -> None:
    code = mode(320, 200, 8) + WINDOW + vbe(BANK, 0) + store(b"A") + say(b"?") + wait_input()
    code += vbe(BANK, 1) + store(b"B") + vbe(BANK, 0) + SHOW_BYTE + vbe(BANK, 1) + SHOW_BYTE + SHUTDOWN + IDLE
    guest = images.write(code)
    with Machine(guest, boot="real", timeout=PATIENCE_S, on_device_crash="restart") as vm:
        vm.expect(r"\?", timeout=PATIENCE_S)
        (process,) = (pid for pid, name in device_processes(os.getpid()).items() if "vga" in name)
        os.kill(process, signal.SIGKILL)
        vm.send("x")
        result = vm.wait()
    assert (result.status, result.output[-2:]) == (0, b"AB")
    assert result.statistics.restarts["by_type"] == {"vga": 1}


def test_snapshot_has_the_frame_buffer_and_the_piece_that_is_shown(images: Images, tmp_path: Path) -> None:
    code = mode(320, 200, 32) + WINDOW + vbe(BANK, 2) + store(b"C") + say(b"ready", DEBUGCON)
    code += SHOW_BYTE + store(b"D") + vbe(BANK, 1) + SHOW_BYTE + vbe(BANK, 2) + SHOW_BYTE + HALT_FOR_EVER
    path = tmp_path / "video.snap"
    guest = images.write(code)
    with Machine(guest, boot="real", timeout=PATIENCE_S, snapshot_when=[f"ready={path}"]) as vm:
        first = vm.wait()
    with Machine.from_snapshot(path, timeout=PATIENCE_S) as vm:
        again = vm.wait()
        screen: Any = vm.screen
    picture = screen.picture
    assert first.output == b"readyC\0D"
    assert again.output == b"C\0D"
    assert picture is not None
    assert (picture.width, picture.height, picture.rgb[:3]) == (320, 200, bytes(3))


def test_snapshot_has_what_is_at_0xa0000_when_the_interface_is_off_again(
    images: Images, tmp_path: Path
) -> None:
    code = mode(320, 200, 8) + vbe(ENABLE, 0) + WINDOW + store(b"R") + say(b"ready", DEBUGCON)
    path = tmp_path / "off.snap"
    guest = images.write(code + SHOW_BYTE + HALT_FOR_EVER)
    with Machine(guest, boot="real", timeout=PATIENCE_S, snapshot_when=[f"ready={path}"]) as vm:
        assert vm.wait().output == b"readyR"
    with Machine.from_snapshot(path, timeout=PATIENCE_S) as vm:
        assert vm.wait().output == b"R"


def test_core_file_has_the_frame_buffer(images: Images, tmp_path: Path) -> None:
    core = tmp_path / "core"
    code = mode(320, 200, 32) + WINDOW + bytes.fromhex("c7061000") + b"FB" + HALT_FOR_EVER
    run_to_end(images.run(code, "--core", str(core), "--screen", "never"))
    data = core.read_bytes()
    assert data.count(b"FB" + bytes(30)) >= 2  # in the frame buffer, and at 0xA0000


# --- The BIOS ---------------------------------------------------------------------------------------------

# xor ax,ax; mov ds,ax; mov es,ax; mov ss,ax; mov sp,0x7c00; cld; AX=4F00h to 0x8000; lds si,[0x800e]. For
# each number up to 0xFFFF: out it; AX=4F01h to 0x8200; out the 256 bytes. All to port 0xE9.
TELL_MODES: Final = bytes.fromhex(
    "31c08ed88ec08ed0bc007cfcb8004fbf0080cd10c5360e80ad83f8ff7424"
    "1e5689c1bae900ee88e0eeb8014fbf0082cd10061fbe0082b90001bae900"
    "f36e5e1febd6"
)
CALL: Final = bytes.fromhex("cd10525153bae900ee88e0ee58ee88e0ee58ee88e0ee58ee88e0ee")
"""int 0x10; out AX, BX, CX and DX to port 0xE9."""


def call(ax: int, bx: int = 0, cx: int = 0, dx: int = 0) -> bytes:
    registers = zip((0xB8, 0xBB, 0xB9, 0xBA), (ax, bx, cx, dx), strict=True)
    return b"".join(bytes((load,)) + value.to_bytes(2, "little") for load, value in registers) + CALL


def boot_sector(images: Images, code: bytes) -> Path:
    assert len(code) <= 510
    return images.write(code.ljust(510, b"\0") + b"\x55\xaa")


def test_bios_describes_the_modes_that_kernels_without_it_can_have(images: Images) -> None:
    sector = boot_sector(images, TELL_MODES + SHUTDOWN + IDLE)
    status, output, _ = run_to_end(Run("--screen", "never", sector))
    blocks = [output[start : start + 258] for start in range(0, len(output), 258)]
    found = {int.from_bytes(block[:2], "little"): block[2:] for block in blocks}
    assert status == 0
    assert sorted(found) == sorted(MODES)
    assert {number for number, block in found.items() if block != mode_block(MODES[number])} == set()


def test_bios_calls_answer_as_vbe_says(images: Images) -> None:
    calls = [
        ((0x4F05, 0, 0, 1), (0x034F, 0, 0, 1)),  # no such mode is set
        ((0x4F02, 0x0104, 0, 0), (0x014F, 0x0104, 0, 0)),
        ((0x4F02, 0x4144, 0, 0), (0x004F, 0x4144, 0, 0)),
        ((0x4F03, 0, 0, 0), (0x004F, 0x4144, 0, 0)),
        ((0x4F05, 0, 0, 47), (0x004F, 0, 0, 47)),
        ((0x4F05, 0x100, 0, 0), (0x004F, 0x100, 0, 47)),
        ((0x4F05, 0, 0, 256), (0x014F, 0, 0, 256)),
        ((0x4F06, 2, 5001, 0), (0x004F, 5024, 1256, 3339)),
        ((0x4F06, 0, 1000, 0), (0x014F, 0, 1000, 0)),
        ((0x4F06, 1, 0, 0), (0x004F, 5024, 1256, 3339)),
        ((0x4F06, 3, 0, 0), (0x004F, 21824, 5456, 768)),
        ((0x4F07, 0, 8, 300), (0x004F, 0, 8, 300)),
        ((0x4F07, 1, 0, 0), (0x004F, 1, 8, 300)),
        ((0x4F08, 0x800, 0, 0), (0x034F, 0x800, 0, 0)),
        ((0x4F0A, 0, 0, 0), (0x0100, 0, 0, 0)),
        ((0x4F15, 1, 0, 0), (0x014F, 1, 0, 0)),
        ((0x4F02, 0x0003, 0, 0), (0x004F, 0x0003, 0, 0)),
        ((0x4F03, 0, 0, 0), (0x004F, 0x0003, 0, 0)),
    ]
    code = b"".join(call(*asked) for asked, _ in calls)
    status, output, _ = run_to_end(
        images.run(code + SHUTDOWN + IDLE, "--bios", "builtin", "--screen", "never")
    )
    assert status == 0
    assert [struct.unpack_from("<4H", output, at) for at in range(0, len(output), 8)] == [
        told for _, told in calls
    ]
