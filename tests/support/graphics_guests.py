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
