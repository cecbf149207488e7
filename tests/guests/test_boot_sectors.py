"""Boot sectors in the manner of the well-known tutorials, on the built-in BIOS and beside QEMU's."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.support.qemu import EMULATED
from tests.support.runs import Run, error_lines, run_to_end

SOURCES: Final = Path(__file__).parent / "boot_sectors"
INCLUDES: Final = Path(__file__).parents[2] / "guests" / "boot"

PRINTS: Final = {
    "hello": "Hello, World!\r\n",
    "find_the_byte": "XXXX\r\n",
    "disk_chs": "DADA FACE\r\n",
    "disk_retry": "abc\r\nno sector 0\r\n",
    "disk_lba": "2222 by LBA\r\n",
    "echo": "Type: abc\r\nthank you\r\n",
    "memory": "027F\r\nFC00\r\n00000000\r\n00100000\r\n",
    "vesa": "VBE\r\nits first mode\r\n",
    "video_modes": "1B1B\r\n50838003\r\n5003",
    "a20": "01 A20 is on\r\n",
    "screen": "one by one\r\nwhole0405\r\n",
    "timer": "three ticks\r\n",
    "small_stack": "S\r\n",
    "mouse": "....00..200328\r\n00080205001A00F6",
    "crtc": "ab\r\nc\r\n0051200008002D275F4F47060031",
    "text_mode": "2800031000002A01",
    "keys": "1E61 8500 48E0 E00D \r\n1E41 4737 4700 \r\n5E00 0E7F 7800 0F00 \r\n4800 1C0D \r\n3062 \r\n0404",
    "key_hook": "041E613062",
    "mouse_key": "...1E613062",
    "pci": "PCI 0210\r\n0008000880867000\r\n8686\r\n",
    "bios32": "800002100008808670000086\r\n",
    "protected": "Started in 16-bit Real Mode\r\nSuccessfully landed in 32-bit Protected Mode\r\n",
}
"""What each example prints, each character once."""

OPTIONS: Final = {name: ["--pci", "on"] for name in ("pci", "bios32")}
TYPED: Final = b"abc\r"

VGA: Final = {"crtc": "std", "text_mode": "std"}
"""The -vga of QEMU; none by default."""

QEMU: Final = "qemu-system-x86_64"
QEMU_SECONDS: Final = 60
BESIDE_QEMU: Final = sorted(
    PRINTS.keys() - {"echo", "mouse_key", "screen", "protected", "vesa", "video_modes", "small_stack"}
)
"""SeaBIOS' serial console takes keys late, leaves strings of AH=13h out, knows no text of 32-bit code, and is
there without VBE; int 15h takes more of a stack, and a key for an answer of the controller."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All examples, assembled."""
    for tool in ("cc", "ld"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} not found: boot sectors cannot be assembled")
    directory = tmp_path_factory.mktemp("boot_sectors")
    for name in PRINTS:
        part, image = str(directory / f"{name}.o"), str(directory / f"{name}.img")
        assemble = ["cc", "-m16", f"-I{INCLUDES}", "-c", "-o", part, str(SOURCES / f"{name}.S")]
        subprocess.run(assemble, check=True)
        link = ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "-e", "0x7c00", "--oformat", "binary"]
        subprocess.run([*link, "-o", image, part], check=True)
    return directory


def test_every_example_is_in_the_table() -> None:
    assert {path.stem for path in SOURCES.glob("*.S")} == set(PRINTS)


@pytest.mark.kvm
@pytest.mark.parametrize("name", PRINTS)
def test_example_prints_what_it_prints_on_a_pc(images: Path, name: str) -> None:
    run = Run(*OPTIONS.get(name, ()), images / f"{name}.img", stdin=subprocess.PIPE)
    run.send(TYPED if name == "echo" else b"")

    status, output, messages = run_to_end(run)

    assert output.decode() == PRINTS[name]
    assert messages == ""
    assert status == 0


@pytest.mark.kvm
def test_example_without_a_bios_ends_at_its_first_call(images: Path) -> None:
    status, output, messages = run_to_end(Run("--bios", "none", images / "hello.img"))

    assert (status, output) == (6, b"")
    assert error_lines(messages) == ["kvmbox: error: int 0x10 AH=0x0e is not provided, at 0x7c1f"]


@pytest.mark.parametrize("name", BESIDE_QEMU)
def test_example_prints_the_same_under_qemu(images: Path, name: str) -> None:
    """The console of QEMU's BIOS is a serial terminal, and the power goes off before its last character.

    The time of that machine is counted in its instructions: by the host's, the terminal may lose letters.
    """
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} not found")
    drive = f"if=ide,format=raw,file={images}/{name}.img"
    command = [QEMU, *EMULATED, "-m", "128"]
    command += ["-machine", "pc,graphics=off", "-snapshot"]
    command += ["-vga", VGA.get(name, "none")]
    command += ["-display", "none", "-serial", "stdio", "-monitor", "none", "-net", "none", "-drive", drive]

    expected = "".join(PRINTS[name].split())
    shown = shown_by_qemu(command)
    assert shown in {expected, expected[:-1]}


def shown_by_qemu(command: Sequence[str]) -> str:
    """The letters that a boot sector shows, without escape sequences and blanks."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=QEMU_SECONDS, check=True
    )
    shown = re.sub(r"\x1b(?:\[[0-9;?=]*[a-zA-Z]|c)", "", done.stdout.decode())
    return "".join(shown.partition("Booting from Hard Disk")[2].lstrip(".").split())
