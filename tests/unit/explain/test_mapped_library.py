"""The disassembler from a file that is mapped early, and relocated when an instruction is to be shown."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from kvmbox.explain import capstone, disassembly
from kvmbox.explain.mapped_library import load

pytestmark = pytest.mark.skipif(disassembly.installed() is None, reason="capstone is not installed")

# A process whose loader finds only what is not mapped by then: as in a confined kvmbox.
LATE: Final = """
import ctypes, sys
from kvmbox.explain import capstone, disassembly
sys.path.insert(0, {directory!r})
mapped = capstone.mapped()
class Refusing(ctypes.CDLL):
    def __init__(self, name, *rest, **options):
        if name is not None:
            raise OSError("failed to map segment from shared object")
        super().__init__(name, *rest, **options)
ctypes.CDLL = Refusing
code = bytes.fromhex({code!r})
print(mapped is not None, [one.text for one in disassembly.disassemble(code, 0x1000, {bits}, 10_000)])
"""


def shown(code: bytes, bits: int, directory: Path | None = None) -> str:
    """Whether the file was mapped, and the instructions that it shows late."""
    program = LATE.format(code=code.hex(), bits=bits, directory=str(directory or "/nowhere"))
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_late_library_shows_what_the_loader_s_does(bits: int) -> None:
    code = random.Random(bits).randbytes(4000)
    # What is no instruction ends the text: from each place on it is another one.
    pieces = [code[at : at + 15] for at in range(0, len(code), 7)]
    known = [piece for piece in pieces if disassembly.mnemonic_of(piece, bits)]
    assert len(known) > 300
    whole = b"".join(piece[: len(disassembly.disassemble(piece, 0, bits, most=1)[0].code)] for piece in known)
    expected = [one.text for one in disassembly.disassemble(whole, 0x1000, bits, 10_000)]
    assert shown(whole, bits) == f"True {expected}"


@pytest.fixture
def other_file(tmp_path: Path) -> Path:
    """Where something else has the library's name."""
    path = tmp_path / "capstone/lib/libcapstone.so"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


@pytest.mark.parametrize("content", [b"", b"text\n", bytes(4096), b"\x7fELF" + b"\xff" * 60])
def test_something_else_of_that_name_shows_nothing(other_file: Path, content: bytes) -> None:
    other_file.write_bytes(content)
    assert shown(b"\x90", 64, other_file.parents[2]).endswith(" []")


@pytest.mark.parametrize("part", [0, 1 / 4, 1 / 2, 7 / 8, 1])
def test_library_that_is_cut_short_shows_nothing(other_file: Path, part: float) -> None:
    found, mapped = capstone.path(), capstone.mapped()
    assert found is not None
    assert mapped is not None
    loaded = max(
        offset + size for kind, _, offset, _, _, size, _, _ in mapped.headers if kind == capstone.PT_LOAD
    )
    other_file.write_bytes(Path(found).read_bytes()[: max(4096, int(part * loaded) - 1)])
    assert shown(b"\x90", 64, other_file.parents[2]) == "True []"


def test_file_that_is_not_mapped_cannot_be_loaded() -> None:
    with pytest.raises(OSError, match="not mapped"):
        load(None, ("cs_open",))
