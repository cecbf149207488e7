"""Kernels that crash (tests/crashes), built for a test, and runs of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.runs import KVMBOX

SOURCES = Path(__file__).parents[1] / "crashes"
FLAGS = (
    *("-g", "-O0", "-ffreestanding", "-nostdlib", "-static", "-fno-pic", "-no-pie", "-mno-red-zone"),
    *("-mno-sse", "-mno-80387", "-fno-stack-protector", "-fcf-protection=none", "-w"),
    *("-Wl,-Ttext=0x100000", "-Wl,--build-id=none"),
)


def need_compiler() -> None:
    """Skip the test if there is none."""
    if not (shutil.which("cc") and shutil.which("ld")):
        pytest.skip("cc or ld not found: the kernels cannot be built")


def build_64(directory: Path, cause: int, address: int = 0x4141_4141_4141_4141) -> Path:
    """crash64.c with this CAUSE."""
    image = directory / "crash.elf"
    subprocess.run(
        ["cc", *FLAGS, f"-DCAUSE={cause}", f"-DADDRESS={address:#x}UL", "-o", image, "crash64.c"],
        cwd=SOURCES,
        check=True,
    )
    return image


def build_32(directory: Path, cause: int) -> Path:
    """crash32.S with this CAUSE."""
    image = directory / "crash.elf"
    subprocess.run(
        ["cc", "-m32", "-g", "-c", f"-DCAUSE={cause}", "-o", directory / "crash.o", "crash32.S"],
        cwd=SOURCES,
        check=True,
    )
    subprocess.run(
        ["ld", "-m", "elf_i386", "-Ttext=0x100000", "-o", image, directory / "crash.o"], check=True
    )
    return image


def build_higher_half(directory: Path) -> Path:
    """higher64.S."""
    image, unit = directory / "higher.elf", directory / "higher.o"
    subprocess.run(["cc", "-g", "-c", "-o", unit, "higher64.S"], cwd=SOURCES, check=True)
    script = SOURCES / "higher64.ld"
    subprocess.run(["ld", "--no-warn-rwx-segments", "-T", script, "-o", image, unit], check=True)
    return image


def run(image: Path, *options: str | Path) -> tuple[int, str]:
    """The exit status and what is said on stderr."""
    ended = subprocess.run(
        [*KVMBOX, "run", image, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stderr
