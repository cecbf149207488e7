"""The drives of the built-in BIOS from inside: several, written, large ones, and what a CD emulates."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from kvmbox.base import layout
from kvmbox.boot import bundled
from tests.support.disk_images import CD_SECTOR, IMAGE_AT, SECTOR, boot_entry, iso, put, validation
from tests.support.qemu import EMULATED
from tests.support.real_mode import SPIN, debug_exit
from tests.support.runs import DESIGNS, Run, error_lines, run_to_end
from tests.support.selection import first_per_commit

pytestmark = pytest.mark.kvm

ROOT: Final = Path(__file__).parents[2]
QEMU: Final = "qemu-system-i386"
QEMU_SECONDS: Final = 60
CD_SAYS: Final = (
    b"drive E0, sectors of 0800: 0018\r\nvolume KVMBOX_CD\r\n"
    b"booted from sector 0014, emulation 00, of drive E0\r\n"
)
WRITTEN: Final = b": written by sector, by LBA, not beyond the end\r\n"
TIB: Final = 1 << 40
SEGMENTS: Final = bytes.fromhex("31c0 8ed8 8ec0")  # xor ax,ax; mov ds,ax; mov es,ax


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the boot sectors of tests/drivers, assembled."""
    for tool in ("cc", "ld"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} not found: boot sectors cannot be assembled")
    directory = tmp_path_factory.mktemp("drivers")
    for name in ("int13", "emulated"):
        part, source = str(directory / f"{name}.o"), str(ROOT / f"tests/drivers/{name}.S")
        subprocess.run(["cc", "-m16", f"-I{ROOT}/guests/boot", "-c", "-o", part, source], check=True)
        link = ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "-e", "0x7c00", "--oformat", "binary"]
        subprocess.run([*link, "-o", str(directory / f"{name}.img"), part], check=True)
    part, source = str(directory / "kernel.o"), str(ROOT / "tests/drivers/int13_multiboot.S")
    subprocess.run(["cc", "-m32", f"-I{ROOT}/guests", "-c", "-o", part, source], check=True)
    link = ["ld", "-m", "elf_i386", "-z", "max-page-size=0x1000", "-T", str(ROOT / "guests/common/elf.ld")]
    subprocess.run([*link, "-o", str(directory / "kernel.elf"), part], check=True)
    return directory


def bundled_image(name: str) -> Path:
    """The file of a bundled guest."""
    found = bundled.find(name)
    assert found is not None
    return Path(found)


def sparse(path: Path, size: int) -> Path:
    """A file that takes no room on the host."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


# --- Several drives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", first_per_commit(DESIGNS), ids=" ".join)
def test_guest_writes_to_a_second_drive_and_reads_it_back(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    disk = sparse(tmp_path / "disk", 10 * layout.MIB)

    status, output, _ = run_to_end(Run(*arguments, "--disk", f"{disk},write", "bootwrite"))

    assert (status, output) == (0, b"drive 81" + WRITTEN)
    data = disk.read_bytes()
    numbers = b"".join(number.to_bytes(2, "little") for number in range(1, 512))
    assert data[3 * SECTOR : 5 * SECTOR - 2] == numbers
    assert not any(data[: 3 * SECTOR] + data[5 * SECTOR :])


@pytest.mark.parametrize(("mode", "words"), [("readonly", b" is write protected\r\n"), ("overlay", WRITTEN)])
def test_drive_stays_as_it_is_unless_it_is_to_be_written(tmp_path: Path, mode: str, words: bytes) -> None:
    disk = sparse(tmp_path / "disk", 10 * layout.MIB)

    status, output, _ = run_to_end(Run("--disk", f"{disk},{mode}", "bootwrite"))

    assert (status, output) == (0, b"drive 81" + words)
    assert not any(disk.read_bytes())


def packet_sector(function: int, drive: int, lba: int, count: int = 1) -> bytes:
    """A boot sector: int 0x13 with this packet, of memory at 0x9000; the run's status is 2 * AH + 1."""
    # mov dword [0x9000],"kvmb"; mov si,0x7d00; mov ah,function; mov dl,drive; int 0x13; mov al,ah;
    # out 0xf4,al
    code = SEGMENTS + bytes.fromhex("66c706 0090 6b766d62 be007d") + bytes((0xB4, function, 0xB2, drive))
    code += bytes.fromhex("cd13 88e0 e6f4") + SPIN
    packet = b"\x10\0" + count.to_bytes(2, "little") + bytes.fromhex("0090 0000") + lba.to_bytes(8, "little")
    return (code.ljust(256, b"\0") + packet).ljust(510, b"\0") + b"\x55\xaa"


@pytest.mark.parametrize(
    ("lba", "count", "status"),
    [
        (2 * TIB // SECTOR + 5, 1, 0),
        (3 * TIB // SECTOR - 1, 1, 0),
        (3 * TIB // SECTOR, 1, 0x01),
        (3 * TIB // SECTOR - 1, 2, 0x0C),
        (0, 129, 0x09),
    ],
    ids=["beyond 2 TiB", "last", "behind the last", "across the end", "too many"],
)
def test_sector_of_a_large_disk_is_written_where_it_is(
    tmp_path: Path, lba: int, count: int, status: int
) -> None:
    disk = sparse(tmp_path / "disk", 3 * TIB)
    image = tmp_path / "image"
    image.write_bytes(packet_sector(0x43, 0x81, lba, count))

    assert run_to_end(Run("--disk", f"{disk},write", image))[0] == 2 * status + 1
    with disk.open("rb") as file:
        file.seek(lba * SECTOR)
        assert file.read(4) == (
            b"kvmb" if status in (0, 0x0C) else bytes(4) if lba < 3 * TIB // SECTOR else b""
        )


def test_drives_tell_what_they_tell_under_qemu(drivers: Path, tmp_path: Path) -> None:
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} not found")
    image = tmp_path / "image"
    image.write_bytes((drivers / "int13.img").read_bytes().ljust(5 * layout.MIB, b"\0"))
    disks = [sparse(tmp_path / "small", 520 * layout.MIB), sparse(tmp_path / "large", 3 * TIB)]
    cd = sparse(tmp_path / "cd", 20 * layout.MIB)
    log = tmp_path / "debugcon"
    command = [QEMU, *EMULATED, "-m", "64", "-display", "none", "-net", "none", "-monitor", "none"]
    command += ["-serial", "none", "-debugcon", f"file:{log}", "-no-reboot", "-snapshot"]
    for index, path in enumerate((image, *disks)):
        command += ["-drive", f"if=ide,index={index},format=raw,file={path}"]
    command += ["-drive", f"if=ide,index=3,media=cdrom,format=raw,file={cd}"]
    subprocess.run(command, check=True, timeout=QEMU_SECONDS)

    drives = [word for disk in disks for word in ("--disk", disk)]
    status, output, messages = run_to_end(Run(*drives, "--cdrom", cd, image))

    assert (status, error_lines(messages)) == (0, [])
    ours, theirs = facts(output.decode()), facts(log.read_text(encoding="ascii"))
    assert len(theirs) == 7 * 4 + 3
    # No such drive: nothing there, as an IBM PC AT says. SeaBIOS says that the call is bad.
    absent = {line[:6] for line in theirs if re.match("(83|84|E1)1500", line)}
    # SeaBIOS does not tell how large a CD is.
    assert {line for line in ours ^ theirs if line[:6] not in absent | {"E04800"}} == set()


def facts(text: str) -> set[str]:
    """A line for each call."""
    return set(text.split())


# --- CDs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", first_per_commit(DESIGNS), ids=" ".join)
def test_cd_boots_without_emulation_in_every_design(arguments: tuple[str, ...]) -> None:
    assert run_to_end(Run(*arguments, "bootcd"))[:2] == (0, CD_SAYS)


def test_cd_boots_again_after_a_reset_and_after_int_19h(tmp_path: Path) -> None:
    # CMOS RAM keeps: the value of index 0x60 counts. cmp al,2; ja end; je reset; int 0x19; reset: by the 8042
    reset = bytes.fromhex("b0fe e664") + SPIN
    code = bytes.fromhex("b060 e670 e471 40 e671 3c02 77") + bytes((4 + len(reset),))
    code += bytes.fromhex("7402 cd19") + reset + debug_exit(3) + SPIN
    image = tmp_path / "cd"
    image.write_bytes(cd_with(boot_entry(), code))

    facts_file = tmp_path / "facts"
    status, _, messages = run_to_end(Run("--json", facts_file, image))

    assert (status, messages) == (7, "")
    assert json.loads(facts_file.read_bytes())["boots"] == 2


def test_cd_that_is_not_read_as_a_whole_boots_again(tmp_path: Path) -> None:
    """Its boot catalog and its boot image are far behind: 80 MB."""
    far = 40_000
    # CMOS RAM keeps: the value of index 0x60 counts. cmp al,1; jne end; reset by the 8042
    reset = bytes.fromhex("b0fe e664") + SPIN
    code = bytes.fromhex("b060 e670 e471 40 e671 3c01 75") + bytes((len(reset),))
    code += reset + debug_exit(3) + SPIN
    catalog = validation() + boot_entry(lba=far + 1)
    cd = bytearray(iso(b"", sectors=far + 10))
    put(cd, 17 * CD_SECTOR + 0x47, far.to_bytes(4, "little"))
    put(cd, far * CD_SECTOR, catalog)
    put(cd, (far + 1) * CD_SECTOR, code)
    image = tmp_path / "cd"
    image.write_bytes(bytes(cd))

    status, _, messages = run_to_end(Run(image))

    assert (status, error_lines(messages)) == (7, [])


def cd_with(entry: bytes, boot_image: bytes) -> bytes:
    cd = bytearray(iso(validation() + entry))
    put(cd, IMAGE_AT * CD_SECTOR, boot_image)
    return bytes(cd)


@pytest.mark.parametrize(
    ("media", "drive", "geometry", "track", "after"),
    [
        (1, 0x00, "4F0F 0101", 15, "01"),
        (2, 0x00, "4F12 0101", 18, "01"),
        (3, 0x00, "4F24 0101", 36, "01"),
        (4, 0x80, "0811 0301", 17, "01"),
    ],
    ids=["1200 KiB", "1440 KiB", "2880 KiB", "hard disk"],
)
def test_cd_emulates_the_drive_that_its_boot_image_is_of(
    drivers: Path, tmp_path: Path, media: int, drive: int, geometry: str, track: int, after: str
) -> None:
    boot_image = bytearray((drivers / "emulated.img").read_bytes().ljust(track * SECTOR + 2, b"\0"))
    put(boot_image, track * SECTOR, b"\x34\x12")  # cylinder 0, head 1, sector 1
    if media == 4:
        put(boot_image, 446, bytes((0x80, 0, 1, 0, 6, 3, track, 9)))  # 10 cylinders of 4 heads
    image = tmp_path / "cd"
    image.write_bytes(cd_with(boot_entry(media, sectors=1), bytes(boot_image)))

    status, output, messages = run_to_end(Run(image))

    assert error_lines(messages) == []
    assert output.decode().splitlines() == [
        f"drive {drive:02X}, CX and DX {geometry}, word 1234",
        "extensions 01, write 03",
        f"end 00, of media {drive:02X}{media:02X}, then read {after}",
        "again 00, word 1234",
    ]
    assert status == 0


def test_emulated_drive_comes_first_and_gives_its_number_back(drivers: Path, tmp_path: Path) -> None:
    """With a hard disk behind the CD, 80h is that disk again when the emulation of 80h has ended."""
    boot_image = bytearray((drivers / "emulated.img").read_bytes().ljust(18 * SECTOR, b"\0"))
    put(boot_image, 446, bytes((0x80, 0, 1, 0, 6, 3, 17, 9)))
    put(boot_image, 17 * SECTOR, b"\x34\x12")
    image, disk = tmp_path / "cd", sparse(tmp_path / "disk", 10 * layout.MIB)
    image.write_bytes(cd_with(boot_entry(4, sectors=1), bytes(boot_image)))

    status, output, _ = run_to_end(Run("--disk", disk, image))

    lines = output.decode().splitlines()
    assert lines[0] == "drive 80, CX and DX 0811 0302, word 1234"  # two drives
    assert lines[2] == "end 00, of media 8004, then read 00"
    assert status == 0


@pytest.mark.parametrize(("end", "drive"), [(b"", 0x81), (bytes.fromhex("b8004b be0098 cd13"), 0x80)])
def test_disk_behind_an_emulated_one_is_moved_up_as_long_as_there_is_one(
    tmp_path: Path, end: bytes, drive: int
) -> None:
    # [mov ax,0x4b00; mov si,0x9800; int 0x13;] mov ax,0x0201; mov cx,1; mov dx,DRIVE; mov bx,0x9000;
    # int 0x13; mov al,[0x9000]; out 0xf4,al
    code = SEGMENTS + end + bytes.fromhex("b80102 b90100 ba") + bytes((drive, 0))
    code += bytes.fromhex("bb0090 cd13 a00090 e6f4") + SPIN
    boot_image = bytearray(code.ljust(SECTOR, b"\0"))
    put(boot_image, 446, bytes((0x80, 0, 1, 0, 6, 3, 17, 9)))
    image, disk = tmp_path / "cd", tmp_path / "disk"
    image.write_bytes(cd_with(boot_entry(4, sectors=1), bytes(boot_image)))
    disk.write_bytes(b"\x15".ljust(layout.MIB, b"\0"))

    assert run_to_end(Run("--disk", disk, image))[0] == 2 * 0x15 + 1


def test_isohybrid_boots_as_a_disk_where_that_is_asked_for(tmp_path: Path) -> None:
    # cmp dl,0xe0; je end with 3; else with 4
    code = bytes.fromhex("80fae0 74") + bytes((len(debug_exit(4) + SPIN),)) + debug_exit(4) + SPIN
    code += debug_exit(3) + SPIN
    cd = bytearray(cd_with(boot_entry(), code))
    put(cd, 0, code.ljust(510, b"\0") + b"\x55\xaa")
    image = tmp_path / "cd"
    image.write_bytes(bytes(cd))

    assert run_to_end(Run(image))[0] == 7
    assert run_to_end(Run("--boot", "bios", image))[0] == 9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--bios", "none", "bootcd"), "--bios none has no meaning for a CD image"),
        (("--append", "x", "bootcd"), "--append has no meaning for a CD image"),
        (("--boot", "iso", "bootdisk"), "it has no volume descriptor of a CD"),
    ],
)
def test_what_does_not_go_with_a_cd_is_refused(arguments: tuple[str, ...], words: str) -> None:
    status, output, messages = run_to_end(Run(*arguments))

    assert status in (2, 4)
    assert output == b""
    (line,) = error_lines(messages)
    assert words in line


@pytest.mark.parametrize(
    ("size", "disks", "types"),
    [
        (layout.MIB, (), b"\xf0"),
        (layout.MIB, ("ide",), b"\xff"),
        (layout.MIB, ("virtio",), b"\xf0"),
        (1440 * layout.KIB, ("ide",), b"\xf0"),  # a diskette leaves the first place to the disk
        (1440 * layout.KIB, ("ide", "ide", "ide"), b"\xff"),
    ],
)
def test_cmos_ram_tells_of_the_first_two_disks(
    tmp_path: Path, size: int, disks: tuple[str, ...], types: bytes
) -> None:
    # mov al,0x12; out 0x70,al; in al,0x71; out 0xe9,al
    code = bytes.fromhex("b012 e670 e471 e6e9") + debug_exit(0) + SPIN
    image, disk = tmp_path / "image", sparse(tmp_path / "disk", 10 * layout.MIB)
    image.write_bytes((code.ljust(510, b"\0") + b"\x55\xaa").ljust(size, b"\0"))
    further = [word for controller in disks for word in ("--disk", f"{disk},on={controller}")]

    assert run_to_end(Run(*further, image))[:2] == (1, types)


# --- The drive that boots -----------------------------------------------------------------------------------


def test_first_disk_boots_where_there_is_no_image(tmp_path: Path) -> None:
    disk, second = tmp_path / "disk", sparse(tmp_path / "second", 10 * layout.MIB)
    shutil.copy(bundled_image("bootwrite"), disk)
    before = disk.read_bytes()

    status, output, _ = run_to_end(Run("--disk", f"{disk},write"))

    assert (status, output) == (0, b"drive 80" + WRITTEN)
    assert disk.read_bytes() != before
    assert run_to_end(Run("--disk", disk, "--disk", second))[:2] == (0, b"drive 81" + WRITTEN)


def test_disk_that_boots_is_one_drive_and_not_two(tmp_path: Path) -> None:
    disk, facts = tmp_path / "disk", tmp_path / "facts"
    shutil.copy(bundled_image("bootwrite"), disk)

    assert run_to_end(Run("--json", facts, "--disk", f"{disk},readonly"))[:2] == (
        0,
        b"drive 80 is write protected\r\n",
    )

    assert [(one["name"], one["mode"]) for one in json.loads(facts.read_text())["disks"]] == [
        ("disk0", "readonly")
    ]


def test_cd_boots_where_there_is_neither_an_image_nor_a_disk() -> None:
    assert run_to_end(Run("--cdrom", bundled_image("bootcd")))[:2] == (0, CD_SAYS)


def test_disk_that_no_bios_boots_is_refused_in_one_line(tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", layout.MIB)

    status, output, messages = run_to_end(Run("--disk", disk))

    assert (status, output) == (4, b"")
    assert error_lines(messages)[0].endswith("it has no boot signature (55 AA at byte 510)")


def test_snapshot_has_a_disk_that_boots_once(tmp_path: Path) -> None:
    disk, snapshot = tmp_path / "disk", tmp_path / "snapshot"
    shutil.copy(bundled_image("bootwrite"), disk)
    assert (
        run_to_end(Run("--disk", disk, "--snapshot-when", f"by sector={snapshot}", "--snapshot-stop"))[0] == 0
    )

    status, output, _ = run_to_end(Run("--from", snapshot))

    assert status == 0
    assert output.startswith(b", by LBA, not beyond the end\r\n")


# --- Kernels that call the BIOS -----------------------------------------------------------------------------


@pytest.mark.parametrize("controller", ["ide", "virtio"])
def test_multiboot_kernel_reads_a_drive_in_real_mode(drivers: Path, tmp_path: Path, controller: str) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"sweet".ljust(128 * SECTOR, b"\0"))

    status, output, _ = run_to_end(Run(drivers / "kernel.elf", "--disk", f"{disk},on={controller}"))

    assert (status, output) == (0, b"sweet")


def test_multiboot_kernel_has_no_drive_where_there_is_none(drivers: Path) -> None:
    status, output, _ = run_to_end(Run(drivers / "kernel.elf"))

    assert (status, output) == (3, b"")
