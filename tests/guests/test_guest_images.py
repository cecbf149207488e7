"""The bundled guests build, are shaped as the boot contract wants them, and match their table.

What they do when run is another test's matter: this one needs a compiler but no /dev/kvm.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from kvmbox.base import layout
from kvmbox.boot import read_image
from kvmbox.boot.choose import choose
from tests.support.shared import built_guests, made_by

SOURCES = Path(__file__).parents[2] / "guests"
RUNS: list[dict[str, Any]] = tomllib.loads((SOURCES / "expectations.toml").read_text())["run"]
GUESTS = sorted({run["guest"] for run in RUNS})
REAL_MODE = {"real16"}
LINUX = {"linuxboot"}
MULTIBOOT2 = {"mb2", "framebuffer2"}
PVH = {"pvh32"}
BOOT_SECTORS = {"bootservices", "bootdisk", "bootlong", "bootwrite", "bootvbe"}
CDS = {"bootcd"}
MULTIBOOT = {
    *("hello32", "memmap", "debugexit", "flood", "portsweep", "haltforever", "haltnmi", "waitsipi"),
    *(
        "spin",
        "bench",
        "irq32",
        "paging32",
        "acpi",
        "fwcfg",
        "ata",
        "net",
        "mbbios",
        "screen",
        "vbe",
        "framebuffer",
    ),
}
ELF32 = MULTIBOOT | MULTIBOOT2 | PVH | {"elf32"}
ELF_GUESTS = [guest for guest in GUESTS if guest not in REAL_MODE | LINUX | BOOT_SECTORS | CDS]
HEADER_DATA = {"header", "request", "request_end"}  # of Multiboot 2, in front of the code
NOT_PLAIN = {"badinsn", "native64"}

MULTIBOOT_MAGIC = 0x1BADB002
MULTIBOOT_SEARCH = 8192  # the header lies within these first bytes of the file, on a multiple of four
GNU_STACK_EXECUTABLE = 1


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The images, built from nothing, and what make said."""
    top = built_guests(tmp_path_factory)
    return top / "images", (top / "said").read_text()


@pytest.fixture(scope="module")
def images(build: tuple[Path, str]) -> Path:
    return build[0]


def multiboot_header(image: bytes) -> int | None:
    """File offset of a valid Multiboot 1 header, or None."""
    for offset in range(0, min(len(image), MULTIBOOT_SEARCH) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", image, offset)
        if magic == MULTIBOOT_MAGIC and (magic + flags + checksum) & 0xFFFF_FFFF == 0:
            return offset
    return None


def suffix_of(guest: str) -> str:
    kinds = ((REAL_MODE, "bin"), (BOOT_SECTORS | CDS, "img"), (LINUX, "bzimage"))
    return next((suffix for guests, suffix in kinds if guest in guests), "elf")


def test_build_clean_says_nothing(build: tuple[Path, str]) -> None:
    assert build[1] == ""


def test_build_again_says_and_rebuilds_nothing(images: Path) -> None:
    before = {image: image.stat().st_mtime_ns for image in images.iterdir()}
    assert made_by(f"OUT={images}", f"BUILD={images.parent}/build") == ""
    assert {image: image.stat().st_mtime_ns for image in images.iterdir()} == before


def test_images_all_are_in_the_table_and_in_the_readme(images: Path) -> None:
    expected = {f"{guest}.{suffix_of(guest)}" for guest in GUESTS}
    assert {image.name for image in images.iterdir()} == expected | {"bios.bin", "expectations.toml"}
    readme = (SOURCES / "README.md").read_text()
    assert [guest for guest in GUESTS if f"| `{guest}` |" not in readme] == []


@pytest.mark.parametrize("guest", ELF_GUESTS)
def test_elf_headers_fit_the_boot_contract(images: Path, guest: str) -> None:
    with (images / f"{guest}.elf").open("rb") as stream:
        elf = ELFFile(stream)
        segments = list(elf.iter_segments())
        loaded = [s for s in segments if s["p_type"] == "PT_LOAD"]
        entry = elf["e_entry"]

        assert elf.elfclass == (32 if guest in ELF32 else 64)
        assert elf["e_type"] == "ET_EXEC"
        notes = {"PT_NOTE"} if guest in PVH else set()
        assert {s["p_type"] for s in segments} <= {"PT_LOAD", "PT_GNU_STACK"} | notes
        assert not any(s["p_flags"] & GNU_STACK_EXECUTABLE for s in segments if s["p_type"] == "PT_GNU_STACK")
        assert loaded
        for segment in loaded:
            assert segment["p_memsz"] > 0
            assert segment["p_paddr"] == segment["p_vaddr"]
            assert segment["p_paddr"] >= layout.HIGH_MEMORY_START
            assert segment["p_paddr"] + segment["p_memsz"] <= 2 * layout.MIB  # leaves room for modules
            assert segment["p_flags"] & 3 != 3, "writable and executable"
        assert any(s["p_flags"] & 1 and s["p_vaddr"] <= entry < s["p_vaddr"] + s["p_filesz"] for s in loaded)


@pytest.mark.parametrize("guest", ELF_GUESTS)
def test_multiboot_header_is_where_the_table_says_only(images: Path, guest: str) -> None:
    offset = multiboot_header((images / f"{guest}.elf").read_bytes())
    assert (offset is not None) == (guest in MULTIBOOT)


def test_ways_to_boot_are_those_that_the_guests_prove(images: Path) -> None:
    ways = {
        "mb2.elf": "multiboot2",
        "pvh32.elf": "pvh",
        "linuxboot.bzimage": "linux",
        "hello32.elf": "multiboot",
        "bootdisk.img": "bios",
        "bootcd.img": "iso",
    }

    for name, way in ways.items():
        assert choose(read_image(str(images / name))).way.name == way


@pytest.mark.parametrize("guest", sorted(BOOT_SECTORS))
def test_boot_sector_has_the_signature_and_whole_sectors(images: Path, guest: str) -> None:
    image = (images / f"{guest}.img").read_bytes()
    assert image[510:512] == b"\x55\xaa"
    assert len(image) % 512 == 0


def test_rom_of_the_bios_has_its_size_and_what_is_at_fixed_places(images: Path) -> None:
    """IBM PC AT Technical Reference: the reset vector, the date, the model, and the diskette's parameters."""
    rom = (images / "bios.bin").read_bytes()
    assert len(rom) == 0x100000 - layout.BIOS_ROM
    assert rom.startswith(b"kvmbox BIOS\0")
    segment = rom.rjust(0x10000, b"\0")
    assert segment[0xFFF0] == 0xEA
    assert segment[0xFFF3:0xFFF5] == b"\x00\xf0"
    assert segment[0xFFFE] == 0xFC
    assert segment[0xEFC7 + 3 : 0xEFC7 + 5] == bytes((2, 18))  # 512 bytes, 18 sectors


def test_real_mode_image_fits_below_64_kib_and_starts_with_code(images: Path) -> None:
    image = (images / "real16.bin").read_bytes()
    assert 0 < len(image) <= 0x10000 - layout.REAL_MODE_LOAD_ADDRESS
    assert image.startswith(b"\xfa\xfc")  # cli; cld


@pytest.mark.parametrize("guest", [guest for guest in ELF_GUESTS if guest not in NOT_PLAIN])
def test_code_has_plain_integer_instructions_only(images: Path, guest: str) -> None:
    """KVM's emulator refuses the others in ring 0, or (lzcnt, tzcnt) executes something else."""
    if shutil.which("objdump") is None:
        pytest.skip("objdump not found")
    listing = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(images / f"{guest}.elf")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    blocks = re.split(r"^[0-9a-f]+ <(\w+)>:$", listing, flags=re.MULTILINE)
    named = zip(blocks[1::2], blocks[2::2], strict=True)
    lines = [line for name, block in named if name not in HEADER_DATA for line in block.splitlines()]
    code = [line.split("\t", 1)[1] for line in lines if "\t" in line]
    refused = re.compile(
        r"%[xyz]mm|%st|%mm\d|^(popcnt|lzcnt|tzcnt|crc32|rdrand|xgetbv|xsave|cmpxchg16b|\(bad\))"
    )
    assert code
    assert [line for line in code if refused.search(line)] == []


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run['guest']}: {run['proves']}")
def test_expectation_is_well_formed(run: dict[str, Any]) -> None:
    allowed = {"guest", "proves", "options", "files", "stdin", "statuses", "output", "patterns", "complaint"}
    assert set(run) <= allowed | {"needs"}
    assert run.get("needs") in (None, "hardware virtualization")
    assert run["statuses"]
    assert all(0 <= status <= 255 for status in run["statuses"])
    assert ("output" in run) != ("patterns" in run)
    for pattern in [*run.get("patterns", ()), run.get("complaint", "")]:
        re.compile(pattern)
    for name in run.get("files", {}):
        assert Path(name).name == name
