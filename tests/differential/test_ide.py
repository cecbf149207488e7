"""The IDE channel and QEMU's: seeded random programs, compared line by line, and the media that they leave.

The model is asked here, with `tests/support/ide_host.py` in place of the VMM. KVMBOX_DIFFERENTIAL_OPS
counts as in test_differential.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from struct import pack

import pytest

from kvmbox.devices.rtc.cmos import disk_bytes
from tests.differential.departures import IDE_DEPARTURES, Departure
from tests.differential.ide_program import CD_SECTORS, DISK_SECTORS, ide_program
from tests.differential.ide_servers import Here, Qemu, Server, ask
from tests.differential.programs import Program
from tests.differential.runner import Answer, find_qemu, qemu_command
from tests.differential.runner import ask as ask_all
from tests.differential.test_differential import OPERATIONS, compare
from tests.support.ide_host import CD_SECTOR, IdeHost, cd, disk, pattern

pytestmark = pytest.mark.thorough

LINES_PER_PROGRAM = 1000

needs_qemu = pytest.mark.skipif(
    find_qemu() is None,
    reason="no QEMU with -accel qtest: install qemu-system-xen, or name one in KVMBOX_QEMU",
)


def here() -> Here:
    media = pattern(DISK_SECTORS), pattern(CD_SECTORS, CD_SECTOR)
    master, slave = disk(DISK_SECTORS, b"ide-hd"), cd(CD_SECTORS, b"ide-cd")
    return Here(IdeHost(master=master, slave=slave, media=media))


@contextlib.contextmanager
def qemu(folder: Path) -> Iterator[Qemu]:
    (folder / "disk").write_bytes(pattern(DISK_SECTORS))
    (folder / "cd").write_bytes(pattern(CD_SECTORS, CD_SECTOR))
    server = Qemu(folder / "disk", folder / "cd")
    try:
        yield server
    finally:
        server.close()


def answers(server: Server, lines: list[str]) -> list[Answer]:
    return [ask(server, line) for line in lines]


@needs_qemu
def test_random_programs_give_what_qemu_gives_and_leave_the_same_disk(tmp_path: Path) -> None:
    compared = seed = 0
    while compared < OPERATIONS:
        program = ide_program(seed, LINES_PER_PROGRAM)
        ours = here()
        with qemu(tmp_path) as theirs:
            found = compare(program, answers(ours, program.lines), answers(theirs, program.lines))
        assert found is None, f"seed {seed}: {found}"
        assert (tmp_path / "disk").read_bytes() == ours.host.media[0], f"seed {seed}"
        compared += len(program.lines)
        seed += 1


def test_programs_write_to_the_disk_and_raise_interrupts() -> None:
    ours = here()
    answers(ours, ide_program(1, LINES_PER_PROGRAM).lines)
    assert ours.host.media[0] != pattern(DISK_SECTORS)
    assert ours.host.rises > 30


def test_programs_are_the_same_each_time_and_differ_by_seed() -> None:
    assert ide_program(1, 300).lines == ide_program(1, 300).lines
    assert ide_program(1, 300).lines != ide_program(2, 300).lines


def test_programs_use_every_entry_of_the_table_and_no_other() -> None:
    used: set[str] = set()
    for seed in range(12):
        program: Program = ide_program(seed, 2000)
        used |= program.used
    assert used == {entry.key for entry in IDE_DEPARTURES}


def said(answer: Answer) -> tuple[str, ...]:
    return (*answer.irqs, answer.text)


@pytest.mark.parametrize("entry", IDE_DEPARTURES, ids=lambda entry: str(entry.key))
def test_witness_shows_the_standard_here(entry: Departure) -> None:
    assert said(answers(here(), list(entry.lines))[-1]) == entry.ours


@needs_qemu
@pytest.mark.parametrize("entry", IDE_DEPARTURES, ids=lambda entry: str(entry.key))
def test_witness_shows_the_departure_in_qemu(entry: Departure, tmp_path: Path) -> None:
    with qemu(tmp_path) as theirs:
        assert said(answers(theirs, list(entry.lines))[-1]) == entry.theirs
    assert entry.ours != entry.theirs


@needs_qemu
@pytest.mark.parametrize("sizes", [(10, 0, 0, 0), (0, 1, 0, 600), (504, 505, 3, 0), (9000, 100, 8000, 7)])
def test_cmos_ram_tells_of_disks_what_that_of_qemu_tells(sizes: tuple[int, ...], tmp_path: Path) -> None:
    sectors, drives = [size << 11 for size in sizes], []
    for index, size in enumerate(sizes):
        if size:
            with (tmp_path / str(index)).open("wb") as file:
                file.truncate(size << 20)
            drives += ["-drive", f"file={file.name},format=raw,if=ide,index={index}"]
    places = [0x12, *range(0x19, 0x2D), 0x39]
    lines = [line for place in places for line in (f"outb 0x70 {place:#x}", "inb 0x71")]
    theirs = [int(answer.text.split()[1], 16) for answer in ask_all([*qemu_command(), *drives], lines)[1::2]]
    ours = disk_bytes(pack("<4Q", *sectors))
    assert [ours.get(place, 0) for place in places] == theirs
