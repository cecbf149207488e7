"""Boot sectors that draw: their images, assembled once, and what they are called."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parents[1] / "guests" / "graphics"

BIOS_MODES: Final = (0x04, 0x05, 0x06, 0x0D, 0x0E, 0x10, 0x11, 0x12, 0x13)
BY_REGISTERS: Final = ("chained", "unchained", "planar")
NAMES: Final = (*BY_REGISTERS, *(f"pixels-{mode:02x}" for mode in BIOS_MODES))
"""`pixels-MODE` sets a mode of the BIOS, and draws by its functions."""

PICTURES: Final = {
    "chained": (640, 400, "ba0b46c295ddbc505d4229b6f5334ee5c114d2e225f62c0dc3bf91ed86716d78"),
    "unchained": (640, 400, "1ad47632a83452cedd260c414d9375a40a21e1c7c0cfbc77ff5db314b0b97a0e"),
    "planar": (640, 480, "6fbf1a647a9d6266d857d6d81a500e87ac841c04680529bf5e04e2293f57550e"),
    "pixels-04": (640, 400, "68f6c95501baaaed894a827a7d68cf94c937c379c1aa383c644a8145c1e7c1f9"),
}
"""Size and hash: those of QEMU's screendump (tests/differential/test_vga_pictures.py)."""


def assemble(name: str, folder: Path) -> Path:
    """The image of one of `NAMES`, in `folder`."""
    source, _, mode = name.partition("-")
    part, image = folder / f"{name}.o", folder / f"{name}.img"
    defines = [f"-DMODE=0x{mode}"] if mode else []
    command = ["cc", "-m16", *defines, f"-I{SOURCES}", "-c", "-o", str(part), str(SOURCES / f"{source}.S")]
    subprocess.run(command, check=True)
    link = ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "-e", "0x7c00", "--oformat", "binary"]
    subprocess.run([*link, "-o", str(image), str(part)], check=True)
    return image
