"""Kernels for debuggers (tests/debugged), built when they are wanted."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).parents[1] / "debugged" / "kernel.c"
_FLAGS: Final = (
    *("-g", "-O0", "-ffreestanding", "-nostdlib", "-static", "-fno-pic", "-no-pie", "-mno-red-zone"),
    *("-mno-sse", "-mno-80387", "-fno-stack-protector", "-fcf-protection=none", "-w"),
    *("-fno-asynchronous-unwind-tables", "-Wl,-Ttext=0x100000", "-Wl,--build-id=none"),
)


class Kernel:
    """The path of a kernel of 32 or 64 bits, and where its symbols are."""

    def __init__(self, directory: Path, bits: int = 64, *defines: str) -> None:
        if not shutil.which("cc") or not shutil.which("nm"):
            pytest.skip("cc or nm not found: the kernel cannot be built")
        self.path: Final = directory / f"kernel{bits}{'-'.join(defines)}.elf"
        options = [f"-m{bits}", *(f"-D{name}" for name in defines)]
        subprocess.run(["cc", *_FLAGS, *options, "-o", self.path, SOURCE], check=True)
        names = subprocess.run(["nm", self.path], check=True, capture_output=True, text=True).stdout
        self._symbols: Final = {
            name: int(value, 16) for value, _, name in (line.split() for line in names.splitlines())
        }

    def address(self, name: str) -> int:
        """Where a function or variable is."""
        return self._symbols[name]
