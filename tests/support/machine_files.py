"""Snapshot files for tests: a small machine, described by hand."""

from __future__ import annotations

import os
from pathlib import Path

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.kvm.cpuid.leaves import Leaf
from kvmbox.parts.snapshot.description import (
    BoardFacts,
    BootFacts,
    Description,
    DeviceFacts,
    DiskFacts,
    HostFacts,
    LineFacts,
    PortText,
    Times,
    WindowFacts,
    cpu_section,
    device_section,
    disk_section,
    file_section,
    window_section,
)
from kvmbox.parts.snapshot.file import SnapshotFile, write_snapshot

MEMORY_SIZE = 4 * layout.MIB

DESCRIPTION = Description(
    HostFacts(False, 2_600_000, 4096, True, (Leaf(0, 0, False, 0x10, 1, 2, 3), Leaf(7, 0, True, 0, 5, 6, 7))),
    BootFacts(
        "multiboot",
        "/k/kernel.elf",
        "quiet",
        (("/k/module", "a b"),),
        None,
        "auto",
        None,
        None,
        None,
        None,
        "auto",
        (("opt/x", "/k/module"),),
        ("/k/kernel.elf", "/k/module"),
    ),
    BoardFacts(1, "host", ("COM1", "MMIO"), 1_700_000_000, 0xF4, False, False, 1 << 28, False, "auto", ()),
    Times(5_000_000, 6_000_000, 1_800_000_000_000_000_000, 77, 1_000),
    (DeviceFacts("COM1", 0x1234, True), DeviceFacts("HPET", 0x5678, False)),
    (LineFacts(4, 1, -1), LineFacts(0, 0, 2)),
    (0x3F8,),
    (b"pic", b"slave", b"ioapic"),
    (),
    (
        (
            PortText("COM1", b"login: ", (b"one\n", b"two\n"), 7, True, False),
            PortText("debugcon", b"", (), 0, False, False),
        ),
    ),
    (DiskFacts("disk0", "/k/disk.img", "overlay", "", "ide", "", "", False, False, 512, "ab" * 32),),
    (WindowFacts("ide0", 0, 7, 0, 512, 1, 4),),
)

SECTIONS = {
    cpu_section(0): b"registers",
    device_section("COM1"): b"uart",
    file_section(0): b"\x7fELF",
    file_section(1): b"",
    disk_section("disk0"): b"overlay",
    window_section("ide0"): b"sector",
}


def write(
    path: Path,
    description: Description = DESCRIPTION,
    sections: dict[str, bytes] = SECTIONS,
    memory: GuestMemory | None = None,
) -> Path:
    """A snapshot file at `path`; memory has a few bytes by default."""
    own = memory or GuestMemory(MEMORY_SIZE)
    if memory is None:
        own.write(0x1000, b"hello")
        own.write(MEMORY_SIZE - 5, b"world")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_snapshot(descriptor, description, sections, own)
    finally:
        os.close(descriptor)
        if memory is None:
            own.close()
    return path


def use(path: Path) -> None:
    """Use everything of the file. Raises SnapshotFileError."""
    with SnapshotFile(str(path)) as file:
        for name in SECTIONS:
            file.section(name)
        file.memory().close()
