"""Programs that know the specifications better than we do read the tables: iasl and dmidecode of Debian."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kvmbox.base import layout
from tests.support.firmware_memory import ALL_SERIAL_PORTS, MIB, FirmwareMemory, firmware_memory

PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
CHECKSUM = {9}
COMPILER = set(range(28, 36))
"""Bytes of a table's header that iasl writes its own name and version into."""


def tool(name: str, package: str) -> str:
    path = shutil.which(name, path=PATH)
    if path is None:
        pytest.skip(f"{name} not found: apt-get install {package}")
    return path


def run(*command: str) -> str:
    """What a program says; it must succeed."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


MACHINES = {
    "smallest": lambda: firmware_memory(MIB, serial_ports=()),
    "usual": lambda: firmware_memory(cpus=2, serial_ports=("COM1", "COM2")),
    "PCI": lambda: firmware_memory(pci=((3, 11), (4, 11), (5, 10))),
    "largest": lambda: firmware_memory(layout.MAX_MEMORY, cpus=32, serial_ports=ALL_SERIAL_PORTS),
}


@pytest.fixture(params=MACHINES, scope="module")
def memory(request: pytest.FixtureRequest) -> FirmwareMemory:
    return MACHINES[request.param]()


@pytest.mark.parametrize("name", ["RSDT", "XSDT", "FACP", "FACS", "APIC", "HPET", "DSDT"])
def test_iasl_reads_a_table_and_compiles_what_it_read_to_the_same_bytes(
    memory: FirmwareMemory, name: str, tmp_path: Path
) -> None:
    iasl = tool("iasl", "acpica-tools")
    table = memory.acpi[name]
    source, source_text, again = tmp_path / "table.dat", tmp_path / "table.dsl", tmp_path / "again.aml"
    source.write_bytes(table)

    read = run(iasl, "-d", str(source))
    compiled = run(iasl, "-p", str(again.with_suffix("")), str(source_text))

    assert not any(word in read.lower() for word in ("error", "warning", "invalid", "exceeds")), read
    assert "**" not in source_text.read_text(encoding="utf-8", errors="replace")  # its remarks on bad fields
    assert "0 Errors, 0 Warnings, 0 Remarks" in compiled
    made = again.read_bytes()
    assert len(made) == len(table)
    differing = {at for at, (ours, theirs) in enumerate(zip(table, made, strict=True)) if ours != theirs}
    assert differing <= (set() if name == "FACS" else CHECKSUM | COMPILER)


def test_iasl_finds_devices_with_their_resources(tmp_path: Path) -> None:
    iasl = tool("iasl", "acpica-tools")
    source = tmp_path / "dsdt.dat"
    source.write_bytes(firmware_memory(cpus=2, serial_ports=ALL_SERIAL_PORTS).acpi["DSDT"])

    run(iasl, "-d", str(source))

    text = " ".join((tmp_path / "dsdt.dsl").read_text(encoding="ascii").split())
    assert text.count("Device (") == 2 + 5 + 7
    for wanted in (
        'Name (_HID, "ACPI0007" /* Processor Device */)',
        'EisaId ("PNP0501") /* 16550A-compatible COM Serial Port */',
        'EisaId ("PNP0303") /* IBM Enhanced Keyboard',
        'EisaId ("PNP0100") /* PC-class System Timer */',
        'EisaId ("PNP0B00") /* AT Real-Time Clock */',
        'EisaId ("PNP0103") /* HPET System Timer */',
        'Name (_HID, "QEMU0001")',
        'Name (_HID, "QEMU0002")',
        "Memory32Fixed (ReadWrite, 0xD0000000, // Address Base 0x00000008, // Address Length )",
        "(Decode16, 0x03F8, // Range Minimum 0x03F8, // Range Maximum 0x01, // Alignment 0x08, // Length )",
        "(Decode16, 0x0510, // Range Minimum 0x0510, // Range Maximum 0x01, // Alignment 0x0C, // Length )",
    ):
        assert wanted in text


def test_dmidecode_reads_every_structure(memory: FirmwareMemory, tmp_path: Path) -> None:
    dmidecode = tool("dmidecode", "dmidecode")
    dump = tmp_path / "smbios.bin"
    dump.write_bytes(memory.dmidecode_dump())

    text = run(dmidecode, "--from-dump", str(dump))

    assert "SMBIOS 2.8 present." in text
    assert text.count("\nHandle ") == len(memory.smbios)
    assert "System is a virtual machine" in text
    assert not any(
        word in text for word in ("<OUT OF SPEC>", "<BAD INDEX>", "TRUNCATED", "Wrong", "Invalid", "checksum")
    )


@pytest.mark.parametrize(
    ("size", "shown"), [(MIB, "1 MB"), (MIB + 4096, "1028 kB"), (5 << 30, "5 GB"), (64 << 30, "64 GB")]
)
def test_dmidecode_shows_the_size_of_memory(size: int, shown: str, tmp_path: Path) -> None:
    dmidecode = tool("dmidecode", "dmidecode")
    dump = tmp_path / "smbios.bin"
    dump.write_bytes(firmware_memory(size).dmidecode_dump())

    assert f"\tSize: {shown}\n" in run(dmidecode, "--from-dump", str(dump), "--type", "17")


def test_acpica_loads_the_tables_and_evaluates_the_sleep_states(
    memory: FirmwareMemory, tmp_path: Path
) -> None:
    """ACPICA is what Linux and the BSDs have: it checks the FADT's fields against each other, too."""
    acpiexec = tool("acpiexec", "acpica-tools")
    names = ["FACP", "FACS", "APIC", "HPET", "DSDT"]
    for name in names:
        (tmp_path / name).write_bytes(memory.acpi[name])

    batch = "evaluate \\_S3;evaluate \\_S5"
    text = run(acpiexec, "-b", batch, *(str(tmp_path / name) for name in names))

    assert "ACPI: 1 ACPI AML tables successfully acquired and loaded" in text
    assert not any(word in text for word in ("Warning", "ACPI Error", "BIOS Error", "invalid"))
    values = [int(value, 16) for value in re.findall(r"\[Integer\] = ([0-9A-F]{16})", text)]
    assert values == [1, 1, 0, 0, 0, 0, 0, 0]
