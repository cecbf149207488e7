"""When a core file is written, what is in it, and what happens if it cannot be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from kvmbox.base.errors import DeviceGoneError, KvmError, StartError
from kvmbox.base.memory import GuestMemory
from kvmbox.base.outcome import (
    CLEAN,
    DEVICE_FAILED,
    GUEST_CRASHED,
    INTERRUPTED,
    TIMED_OUT,
    UNEXPECTED,
    UNKNOWN_EXIT,
    Outcome,
)
from kvmbox.base.symbol_file import SymbolFile
from kvmbox.parts.core_file.core import vmcoreinfo_note
from kvmbox.parts.core_file.part import CoreFile
from kvmbox.run.frontend import Caller
from tests.support.scripted_vcpu import FakeVcpu

CRASH = Outcome(GUEST_CRASHED, "the guest crashed", error=True)
ELF_64 = SymbolFile(b"\x7fELF\x02")
MIB = 1 << 20


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    memory = GuestMemory(2 * MIB)
    yield memory
    memory.close()


def thread(index: int = 0, *, error: BaseException | None = None) -> Any:
    vcpu: Any = FakeVcpu()
    vcpu.index, vcpu.get_xsave = index, lambda _size: b""
    return SimpleNamespace(vcpu=vcpu, loop=SimpleNamespace(outcome=None), error=error)


def guest_with(memory: GuestMemory) -> Any:
    def refuse() -> int:
        raise KvmError("KVM has no XSAVE")

    return SimpleNamespace(memory=memory, vm=SimpleNamespace(xsave_size=refuse))


class Written:
    """A core file in a directory, and what was said."""

    def __init__(self, directory: Path, *, always: bool = False) -> None:
        self.path = directory / "guest.core"
        self.said: list[str] = []
        self.core = CoreFile(str(self.path), core_always=always)
        opening: Any = SimpleNamespace(caller=Caller(), say=self.said.append)
        self.core.open(opening)

    def write(self, memory: GuestMemory, *threads: Any, symbols: tuple[SymbolFile, ...] = ()) -> None:
        self.core.symbols = symbols
        self.end(memory, *(threads or [thread()]))
        self.core.close()

    def end(self, memory: GuestMemory, *threads: Any) -> None:
        boot: Any = SimpleNamespace(guest=guest_with(memory), vcpus=threads)
        self.core.boot_ends(boot, CRASH)

    def missing(self, outcome: Outcome = CRASH) -> str | None:
        """Why there is no core file of a run that has ended with `outcome`."""
        found = self.core.ended(outcome)
        return None if found is None else found.reason

    def loads(self) -> list[tuple[int, int, int]]:
        """Linear address, place in the file, size."""
        with self.path.open("rb") as stream:
            return [
                (one["p_vaddr"], one["p_offset"], one["p_filesz"])
                for one in ELFFile(stream).iter_segments()
                if one["p_type"] == "PT_LOAD"
            ]

    def notes(self) -> list[Any]:
        with self.path.open("rb") as stream:
            (segment,) = [one for one in ELFFile(stream).iter_segments() if isinstance(one, NoteSegment)]
            return list(segment.iter_notes())

    def at(self, place: int, size: int) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(place)
            return stream.read(size)


@pytest.mark.parametrize(
    ("status", "wanted"),
    [(GUEST_CRASHED, True), (DEVICE_FAILED, True), (UNKNOWN_EXIT, True), (TIMED_OUT, True),
     (CLEAN, False), (33, False), (UNEXPECTED, False), (INTERRUPTED, False)],
)  # fmt: skip
def test_core_file_is_wanted_of_bad_ends(status: int, wanted: bool, tmp_path: Path) -> None:
    some, always = Written(tmp_path), Written(tmp_path, always=True)
    assert some.core.wanted(Outcome(status, "")) is wanted
    assert always.core.wanted(Outcome(status, ""))
    some.core.close()
    always.core.close()
    assert os.listdir(tmp_path) == []


def test_memory_and_roms_are_in_the_file_once(memory: GuestMemory, tmp_path: Path) -> None:
    memory.write(0x12_3456, b"here")
    memory.add_rom(0xFFFF_0000, b"\x90" * 0x10000)
    written = Written(tmp_path)
    written.write(memory)
    (low, place, size), (rom, rom_place, rom_size) = written.loads()
    assert (low, size, rom, rom_size) == (0, 2 * MIB, 0xFFFF_0000, 0x10000)
    assert written.at(place + 0x12_3456, 4) == b"here"
    assert written.at(rom_place, 0x10000) == b"\x90" * 0x10000
    assert written.path.stat().st_size == rom_place + 0x10000
    draft: Any = SimpleNamespace(facts={})
    written.core.report(draft)
    assert draft.facts == {"core": str(written.path)}
    assert written.missing() is None
    (line,) = written.said
    assert line == f"core file '{written.path}' written: 16 KiB of memory"


def test_class_of_the_file_is_that_of_the_symbols(memory: GuestMemory, tmp_path: Path) -> None:
    written = Written(tmp_path)
    written.write(memory, symbols=(SymbolFile(b"0000 T map\n"), ELF_64))
    with written.path.open("rb") as stream:
        assert ELFFile(stream)["e_machine"] == "EM_X86_64"


def test_vmcoreinfo_of_the_guest_is_a_note(memory: GuestMemory, tmp_path: Path) -> None:
    memory.write(0x12_3000, vmcoreinfo_note(b"OSRELEASE=6.12.0\n"))
    written = Written(tmp_path)
    written.write(memory)
    assert [(one["n_name"], one["n_descsz"]) for one in written.notes()][1:] == [("VMCOREINFO", 17)]


def test_cpu_that_lost_its_device_comes_first(memory: GuestMemory, tmp_path: Path) -> None:
    written = Written(tmp_path)
    written.write(memory, thread(0), thread(1, error=DeviceGoneError("uart", "is gone")))
    assert [one["n_desc"][24] for one in written.notes()] == [2, 1]


def test_file_of_32_bits_names_what_it_can_name(tmp_path: Path) -> None:
    memory = GuestMemory(5 << 30)
    memory.write((5 << 30), b"far")
    written = Written(tmp_path)
    written.write(memory)
    loads = written.loads()
    assert len(loads) == 2
    assert loads[-1][1] + loads[-1][2] <= 1 << 32
    assert written.path.stat().st_size > 5 << 30
    memory.close()


def test_cpu_that_cannot_be_read_is_a_problem(memory: GuestMemory, tmp_path: Path) -> None:
    one = thread()
    one.vcpu.gone = True
    written = Written(tmp_path)
    written.write(memory, one)
    assert written.missing() == (
        f"cannot write --core '{written.path}': "
        "cannot read kvm_regs of vCPU 0: ioctl KVM_GET_REGS: Input/output error"
    )
    assert os.listdir(tmp_path) == []


def test_what_nobody_expected_is_a_problem_too(memory: GuestMemory, tmp_path: Path) -> None:
    one = thread()
    one.vcpu.get_sregs = lambda: None
    written = Written(tmp_path)
    written.write(memory, one)
    assert "cannot write --core" in (written.missing() or "")
    assert os.listdir(tmp_path) == []


def test_signal_while_it_is_written_is_a_problem_that_passes_on(memory: GuestMemory, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    one = thread()
    one.vcpu.get_sregs = interrupt
    written = Written(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        written.end(memory, one)
    written.core.close()
    assert written.missing() == f"cannot write --core '{written.path}': interrupted"
    assert os.listdir(tmp_path) == []


def test_run_without_a_cpu_to_look_at_says_so(tmp_path: Path) -> None:
    written = Written(tmp_path)
    written.core.close()
    assert written.missing(Outcome(CLEAN, "")) is None
    assert "the guest has no CPU to look at" in (written.missing() or "")


def test_folder_that_is_not_there_is_an_error_of_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot write --core '.*none/guest.core': No such file"):
        Written(tmp_path / "none")
