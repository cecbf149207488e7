"""The file of --core: opened before the VMM confines itself, and written when the guest has come to its end.

The file has the ELF header and the program headers, the notes, and then all of guest memory: RAM region
after region, and ROMs. What is zero is a hole, so the file takes as much room on the disk as the guest has
used. All program headers share these bytes. `core` has the format, `page_map` the addresses.

The file appears under its name when all of it is written (`host.files.atomic_file`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import DeviceProcessError, KvmError, StartError
from kvmbox.base.layout import PAGE_SIZE
from kvmbox.base.memory import GuestMemory
from kvmbox.base.outcome import DEVICE_FAILED, GUEST_CRASHED, TIMED_OUT, UNKNOWN_EXIT, Outcome
from kvmbox.explain.paging import CR0_PG, WRITABLE
from kvmbox.explain.stopped_cpu import Cpu
from kvmbox.explain.undelivered_exception import find
from kvmbox.host.files.atomic_file import Destination
from kvmbox.host.files.sparse_memory import BLOCK, put, runs_of
from kvmbox.parts.core_file import core
from kvmbox.parts.core_file.page_map import MOST_RANGES, Backing, Range, page_map
from kvmbox.run.loop.vcpu_pause import Visitor
from kvmbox.run.part import Finding, Lost, Opening, Part, Standing
from kvmbox.run.vcpu.handle import VcpuThread, ended_it

if TYPE_CHECKING:
    from kvmbox.base.symbol_file import SymbolFile
    from kvmbox.run.machine.guest_vm import GuestVm
    from kvmbox.run.machine.one_boot import Boot
    from kvmbox.run.result.run_result import Draft

WRITTEN_AFTER: Final = (GUEST_CRASHED, DEVICE_FAILED, UNKNOWN_EXIT, TIMED_OUT)
"""The ends after which there is a core file, also without --core-always."""

_MOST_FILE_32: Final = (1 << 32) - PAGE_SIZE
"""What of a file an ELF file of 32 bits can name."""

_ROOM_FOR_VMCOREINFO: Final = 2 * PAGE_SIZE


class CoreFile(Part, Visitor):
    """One core file to be."""

    def __init__(self, core: str, *, core_always: bool = False) -> None:
        self._path = core
        self._always = core_always
        self._destination: Destination | None = None
        self._end: Callable[[], None] = lambda: None
        self._written = False
        self.symbols: Sequence[SymbolFile] = ()
        """The files with symbols of the guest: they say how wide the file is."""
        self.problem: str | None = None
        """Why there is no core file, if one was wanted."""

    def open(self, opening: Opening) -> None:
        """See `Part`. Raises StartError."""
        self._say = opening.say
        self._destination = Destination(self._path, "--core", StartError)
        self._rename, self._end = opening.caller.committer([self._destination])

    def attach(self, machine: Standing) -> None:
        """See `Part`."""
        self.symbols = machine.source.symbols
        machine.loop.standstill.admit(self)

    def wanted(self, outcome: Outcome) -> bool:
        """Whether a run that ends with `outcome` leaves a core file."""
        return self._always or outcome.status in WRITTEN_AFTER

    def boot_ends(self, boot: Boot, end: Outcome | None) -> None:
        """Write it, if it is wanted. What fails is said in `problem`."""
        if end is not None and self.wanted(end):
            self._write(boot.vcpus, boot.guest, end)

    def _write(self, threads: Sequence[VcpuThread], guest: GuestVm, outcome: Outcome) -> None:
        self.problem = f"cannot write --core '{self._path}': interrupted"
        # gdb shows the first one, and the file has the addresses of that one.
        ordered = sorted(
            threads,
            key=lambda one: not (ended_it(one, outcome) or isinstance(one.error, DeviceProcessError)),
        )
        assert self._destination is not None
        descriptor = self._destination.descriptor
        try:
            stored, complete = _write(descriptor, ordered, guest, outcome, self.symbols)
            os.fsync(descriptor)
            self._rename(0)
        except Exception as error:  # noqa: BLE001 - the guest is anybody's, and its end counts
            with suppress(OSError):  # the disk may be full of it
                os.ftruncate(descriptor, 0)
            why = f"{type(error).__name__}: {error}"
            if isinstance(error, OSError | KvmError):
                why = getattr(error, "strerror", None) or str(error)
            self.problem = f"cannot write --core '{self._path}': {why}"
            return
        self._written, self.problem = True, None
        less = "" if complete else "; its page tables map more than is in the program headers"
        self._say(f"core file '{self._path}' written: {stored >> 10} KiB of memory{less}")

    def ended(self, outcome: Outcome | None) -> Finding | None:
        """See `Part`: why there is no core file, though one was wanted."""
        if outcome is None or self._written or not self.wanted(outcome):
            return None
        return Lost(self.problem or f"--core '{self._path}' is not written: the guest has no CPU to look at")

    def report(self, draft: Draft) -> None:
        """See `Part`."""
        draft.facts["core"] = self._path if self._written else None

    def close(self) -> None:
        """See `Part`: remove what is not finished, and close the file. Idempotent."""
        self._end()
        if self._destination is not None:
            if not self._written:
                self._destination.abandon()
            self._destination.close()


def _write(
    descriptor: int,
    threads: Sequence[VcpuThread],
    guest: GuestVm,
    outcome: Outcome,
    symbols: Sequence[SymbolFile],
) -> tuple[int, bool]:
    """Write the file. Returns how many bytes of memory are no hole, and whether all that is mapped has a
    program header. Raises OSError, KvmError.
    """
    memory = guest.memory
    cpus = [_cpu(thread, guest, outcome) for thread in threads]
    wide = any(one.cpu.long_mode for one in cpus) or any(_is_wide(one.data) for one in symbols)
    notes = b"".join(core.notes_of(one, wide=wide) for one in cpus)
    regions = [*memory.regions, *memory.video, *memory.roms]
    room = core.header_size(MOST_RANGES + len(regions) + 1, wide=wide) + len(notes) + _ROOM_FOR_VMCOREINFO
    begin = place = -(-room // PAGE_SIZE) * PAGE_SIZE
    backings = []
    for region in regions:
        end = place + region.size
        size = end - place if wide else min(end, _MOST_FILE_32) - place
        if size > 0:
            backings.append(Backing(region.start, size, place))
        place = end
    stored, found = _write_memory(descriptor, memory, begin)
    if found:
        notes += core.vmcoreinfo_note(found)
    os.ftruncate(descriptor, place)
    mapped = page_map(cpus[0].cpu, backings)
    ranges = list(mapped.ranges)
    if wide and cpus[0].cpu.sregs.cr0 & CR0_PG:
        ranges += [
            Range(core.PHYSICAL + one.start, one.start, one.place, one.size, WRITABLE) for one in backings
        ]
    at = core.header_size(len(ranges) + 1, wide=wide)
    put(descriptor, 0, core.headers(ranges, (at, len(notes)), wide=wide) + notes)
    return stored, mapped.complete


def _cpu(thread: VcpuThread, guest: GuestVm, outcome: Outcome) -> core.CoreCpu:
    vcpu = thread.vcpu
    cpu = Cpu(vcpu.get_regs(), vcpu.get_sregs(), guest.memory.available, vcpu.index)
    signal = 0
    if outcome.status == GUEST_CRASHED and ended_it(thread, outcome):
        fault = find(cpu)
        signal = core.signal_of(None if fault is None else fault.vector)
    xsave, xcr0 = b"", 0
    with suppress(OSError, KvmError):  # the other registers count more
        xsave = vcpu.get_xsave(guest.vm.xsave_size())
        xcr0 = next((one.value for one in vcpu.get_xcrs().xcrs if one.xcr == 0), 0)
    return core.CoreCpu(cpu, signal, xsave, xcr0)


def _is_wide(image: bytes) -> bool:
    """Whether this is an ELF file of 64 bits."""
    return image[:5] == b"\x7fELF\x02"


def _write_memory(descriptor: int, memory: GuestMemory, begin: int) -> tuple[int, bytes]:
    """Write RAM, frame buffer and ROMs from `begin` on. Returns how many bytes that were, and VMCOREINFO."""
    stored, found = 0, b""
    for run, piece in runs_of(memory):
        put(descriptor, begin + run.first * BLOCK, piece)
        stored += len(piece)
        for at in range(0, len(piece), PAGE_SIZE):
            with piece[at : at + 2 * PAGE_SIZE] as pages:
                found = found or core.vmcoreinfo_in(pages)
    place = begin + memory.size
    for region in (*memory.video, *memory.roms):
        put(descriptor, place, region.pages[:].rstrip(b"\0"))
        place += region.size
    return stored, found


PART = CoreFile
