"""What is measured: rows, configurations, and the jobs that measure rows. Pure data and pure choices.

A *row* is one number, a *configuration* one column of the design space, a *job* one start of a guest (or of a
few) that gives the samples of one or more rows. Names of rows follow kvm-unit-tests' vmexit, so that others
can compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final, Literal, TypeAlias

from kvmbox.base.compiled import VARIABLE
from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.remote.transport.ipc_table import DEFAULT_IPC, IPC_CHOICES

Unit: TypeAlias = Literal["ns", "ns/byte", "bytes", "times"]
Job: TypeAlias = Literal[
    "accesses", "native", "ata", "virtio", "network", "graphics", "start", "boots", "memory", "crowd"
]

NONE: Final = "none"
FLOOR: Final = "floor"
QEMU: Final = "qemu"


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to run the models. `sandbox`, `seccomp` and `ipc` are options of `kvmbox run`; `pure` has the
    hot path in Python where the others are compiled.

    A `kind` other than "kvmbox" is measured beside it: "floor" is KVM_RUN without kvmbox, "qemu" another VMM.
    """

    name: str
    kind: Literal["kvmbox", "floor", "qemu"] = "kvmbox"
    sandbox: str = ""
    seccomp: str = ""
    ipc: str = ""
    pure: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """The options of `kvmbox run` that choose it."""
        pairs = (("--sandbox", self.sandbox), ("--seccomp", self.seccomp), ("--ipc", self.ipc))
        return tuple(word for option, value in pairs if value for word in (option, value))

    @property
    def environment(self) -> dict[str, str]:
        """What the environment of `kvmbox run` has besides."""
        return {VARIABLE: "1"} if self.pure else {}


SECCOMPS: Final = ("filter", "strict", "off")
IPCS: Final = tuple(reversed(IPC_CHOICES))
"""In the order of the tables: the cheapest first."""


def isolated(ipc: str) -> str:
    """The name of the configuration that is `kvmbox run --ipc ipc`, everything else by default."""
    return f"process/filter/{ipc}"


def pure(name: str) -> str:
    """The name of the configuration `name` in pure Python."""
    return f"pure/{name}"


def configurations(*, compiled: bool = True) -> list[Configuration]:
    """The design space: every choice that makes a difference. A thread has no seccomp filter of its own.

    Without a compiled hot path, everything is pure Python, and nothing is so once more.
    """
    found = [Configuration(FLOOR, "floor"), Configuration(NONE, sandbox="none")]
    for sandbox, modes in (("process", SECCOMPS), ("per-device", SECCOMPS[:1])):
        found += [
            Configuration(f"{sandbox}/{seccomp}/{ipc}", sandbox=sandbox, seccomp=seccomp, ipc=ipc)
            for seccomp in modes
            for ipc in IPCS
        ]
    found += [Configuration(f"thread/{ipc}", sandbox="thread", ipc=ipc) for ipc in IPCS]
    if DEFAULT_IPC not in IPCS:
        # It chooses one of the others: measured to show that it is as fast as the fastest of them.
        found.append(Configuration(DEFAULT, sandbox="process", seccomp="filter", ipc=DEFAULT_IPC))
    if compiled:
        main = [one for one in found if one.name in MAIN]
        found += [replace(one, name=pure(one.name), pure=True) for one in main]
    return found


DEFAULT: Final = isolated(DEFAULT_IPC)
"""What `kvmbox run` does without options."""

MAIN: Final = tuple(dict.fromkeys((NONE, *(isolated(ipc) for ipc in IPCS), DEFAULT)))
"""The configurations that all rows are measured in."""


@dataclass(frozen=True, slots=True)
class Row:
    """One number.

    `word` is the bench guest's test, `count` its iterations in a full run, `value` which of its numbers
    counts: the mean, or one of the spread. `reference` is the row that it is compared with in the same
    configuration, apart from itself in `none`.
    """

    name: str
    unit: Unit
    job: Job
    title: str
    word: str = ""
    count: int = 0
    value: str = "mean"
    reference: str | None = None


def _access(
    name: str, title: str, count: int = 5000, *, unit: Unit = "ns", reference: str | None = None
) -> Row:
    return Row(name, unit, "accesses", title, word=name, count=count, reference=reference)


def _io(job: Job, name: str, title: str, count: int) -> Row:
    return Row(name, "ns", job, title, word=name, count=count)


def _native(word: str) -> Row:
    title = f"{word} by 64-bit code at privilege level 3"
    return Row(f"{word}_cpl3", "ns", "native", title, word=word, count=5000)


PASSES: Final = 5
"""How often one run of the guest goes through all of its tests. The median of the passes is the value of the
round: somebody else who takes the CPU for some tenths of a second spoils a pass, not the round.
"""

LAST: Final = ("thr_irq",)
"""Tests that change how others are done after them: kvmbox lets a port whose driver has used interrupts exit
for some time, though its writes could be late (`run.vcpu.late_writes`).
"""

START_PREFIX: Final = "start: "
BUSY_VMS: Final = (1, 2, 4)
BUSY_LOOPS: Final = (1, 2)
WARM_BOOTS: Final = 40
"""How many boots in a row are timed together."""

# The formatter would give each cell a line of its own.
# fmt: off
ROWS: Final = (
    _access("bare", "the loop around each of the rows below, without an access", 10_000),
    _access("rdtsc_pair", "RDTSC twice: what reading the clock costs", 5_000),
    _access("inb_from_device", "IN from the UART's LSR", 10_000),
    _access("outb_to_device", "OUT to a register of the UART"),
    _access("inl_from_device", "four bytes in one IN"),
    _access("outl_to_device", "four bytes in one OUT"),
    _access("insb_from_device", "64 bytes by one REP INSB from the UART's LSR", 2_500),
    _access("inb_unclaimed", "IN from a port that nobody has"),
    _access("outb_unclaimed", "OUT to a port that nobody has"),
    _access("mov_from_device", "load from the memory-mapped UART"),
    _access("mov_to_device", "store to the memory-mapped UART"),
    _access("rtc_read", "RTC: index write and data read", 7_500, reference="rtc_two_reads"),
    _access("rtc_two_reads", "RTC: two acknowledged accesses"),
    _access("pit_read", "PIT: latch, then two reads"),
    _access("post", "OUT to the POST port"),
    _access("thr_polled", "console, polled: LSR and THR for each byte", unit="ns/byte"),
    _access("thr_only", "console without polling: THR for each byte", unit="ns/byte"),
    _access("thr_irq", "console, interrupt-driven: a FIFO per interrupt", unit="ns/byte"),
    _access("debugcon", "debug console: OUT for each byte", unit="ns/byte"),
    Row("inb_p99", "times", "accesses", "99th percentile of single INs, as a multiple of their median",
        "inb_from_device", 4_000, "p99/p50"),
    Row("busy_p99", "times", "accesses",
        "the same of polled output, which keeps the other threads of the VMM busy", "thr_polled", 4_000,
        "p99/p50"),
    Row("hlt_latency_p50", "ns", "accesses", "interrupt to handler, guest in HLT: median", "hlt_latency", 300,
        "p50"),
    Row("hlt_latency_p99", "ns", "accesses", "the same, 99th percentile", "hlt_latency", 300, "p99"),
    _native("inb_from_device"),
    _native("outb_to_device"),
    _native("mov_from_device"),
    _native("post"),
    _io("ata", "ata_read", "ATA: a sector by REP INSW, polled", 2_000),
    _io("ata", "ata_write", "ATA: a sector by REP OUTSW, polled", 200),
    _io("virtio", "virtio_read_qd1", "virtio-blk: 4 KiB, polled, one at a time", 2_000),
    _io("virtio", "virtio_read_qd32", "virtio-blk: 4 KiB, one of 32 behind one notification", 6_400),
    _io("virtio", "disk_sequential", "virtio-blk: 64 KiB of a sequential read", 500),
    _io("network", "net_round_trip", "virtio-net: a frame to a peer and back, polled, one at a time", 2_000),
    _io("network", "net_batch", "virtio-net: a frame to a peer and back, one of 32 behind one notification "
        "(1 s / this = frames a second each way)", 6_400),
    _io("graphics", "vga_frame", "VGA: a frame of mode 13h by REP STOSL (1 s / this = frames a second)", 50),
    Row("vga_planar", "ns/byte", "graphics", "VGA: a byte to all planes by REP STOSW", "vga_planar", 163_840),
    Row("start", "ns", "start", "start: `hello32` from exec to exit"),
    Row("warm_boot", "ns", "boots",
        "one of many boots of a guest that ends at once: a warm pool, QEMU one after the other "
        "(1 s / this = boots per second)"),
    Row("pss", "bytes", "memory", "PSS of all processes of an idle VM"),
    Row("memory_alone", "bytes", "memory", "the same, pages that others map as well counted whole"),
    *(Row(f"vms_{count}", "ns", "crowd",
          "IN from LSR, one VM" if count == 1 else f"IN from LSR, the slowest of {count} busy VMs",
          # Long, so that all VMs measure at once: QEMU's firmware takes seconds, not equally many in each.
          "inb_from_device", 20_000 if count == 1 else 200_000, reference=None if count == 1 else "vms_1")
      for count in BUSY_VMS),
    *(Row(f"load_{count}", "ns", "crowd",
          f"IN from LSR, one VM beside {count} busy loop{'s' if count > 1 else ''}", "inb_from_device",
          20_000, reference="vms_1")
      for count in BUSY_LOOPS),
)
# fmt: on

PRIMARY: Final = {
    "inb_from_device": "read of the line status register",
    "thr_polled": "output, polled, per byte",
    "thr_only": "output, blind, per byte",
    "debugcon": "debug console, per byte",
    "rtc_read": "RTC: index and data",
    "inl_from_device": "inl from a byte device",
    "inb_unclaimed": "unclaimed port",
    "hlt_latency_p50": "hlt → handler",
}
"""Row → how the answer calls it: each kind of access once. --quick and pure Python measure only these."""
CHOICES: Final = frozenset({"inb_from_device", "outb_to_device", "thr_polled", "start", "pss"})
"""The rows of the configurations that only show what one choice costs."""

QUICK_ROWS: Final = frozenset({*PRIMARY, "start"})
QUICK_CONFIGURATIONS: Final = (FLOOR, *MAIN)

NOT_AT_FLOOR: Final = frozenset({"thr_irq", "hlt_latency"})
"""Tests that need a device to answer with sense: the floor gives every read 0x60 and raises no interrupt."""
IO_JOBS: Final = ("ata", "virtio", "network", "graphics")
NOT_IN_QEMU: Final = frozenset({"mov_from_device", "mov_to_device", "pit_read"})
"""Tests of devices that a PC of QEMU does not have, or leaves to the kernel (`peer.command`)."""


def start_row(name: str) -> Row:
    """The row `name` of one stage of a start: START_PREFIX and what `kvmbox run --json` calls it."""
    return Row(name, "ns", "start", "that part of the start")


class Plan(Value):
    """What one run of `kvmbox bench` measures. `divide` cuts the iterations of the guest's tests."""

    rows: tuple[Row, ...]
    configurations: tuple[Configuration, ...]
    rounds: int
    divide: int = 1
    everything: bool = False
    """Whether each configuration measures all rows, since rows or configurations were named."""

    def jobs(self, configuration: Configuration) -> list[Job]:
        """The jobs of one configuration, in order."""
        found: list[Job] = []
        for row in self.rows:
            if row.job not in found and self.wants(row, configuration):
                found.append(row.job)
        return found

    def wants(self, row: Row, configuration: Configuration) -> bool:
        """Whether this row can be, and shall be, measured in this configuration."""
        if configuration.kind == "floor":
            return row.job in ("accesses", "native") and row.word not in NOT_AT_FLOOR
        if configuration.kind == "qemu":
            return row.job != "native" and row.word not in NOT_IN_QEMU
        if self.everything or configuration.name in MAIN:
            return True
        return row.name in (QUICK_ROWS if configuration.pure else CHOICES)

    def rows_of(self, job: Job, configuration: Configuration) -> list[Row]:
        """The rows that `job` measures in `configuration`."""
        return [row for row in self.rows if row.job == job and self.wants(row, configuration)]

    def iterations(self, row: Row) -> int:
        """How often the guest repeats this row's test."""
        return max(row.count // self.divide, 1)


def words(rows: Iterable[Row], plan: Plan) -> list[str]:
    """The bench guest's command line for these rows: PASSES over the tests of which the mean counts, each
    with its part of the iterations, and then, once, the tests whose spread some row wants. The passes over
    the tests in LAST come at the end.
    """
    counts: dict[str, int] = {}
    spreads: dict[str, int] = {}
    for row in rows:
        asked = counts if row.value == "mean" else spreads
        asked[row.word] = max(asked.get(row.word, 0), plan.iterations(row))
    passes = {word: f"{word}={max(count // PASSES, 1)}" for word, count in counts.items()}
    last = [passes.pop(word) for word in LAST if word in passes]
    return [*passes.values()] * PASSES + [f"{word}={n},dist" for word, n in spreads.items()] + last * PASSES


def match(
    patterns: Sequence[str], rows: Iterable[Row], space: Iterable[Configuration]
) -> tuple[set[str], set[str]]:
    """The names of rows, and of configurations, that any pattern fits. UsageError if one fits nothing."""
    row_names, names = [row.name for row in rows], [one.name for one in space]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in row_names + names):
            raise UsageError(
                f"--only '{pattern}' names neither a row nor a configuration",
                hint="'kvmbox bench --list' has the names",
            )

    def fitting(found: list[str]) -> set[str]:
        return {name for name in found if any(fnmatchcase(name, pattern) for pattern in patterns)}

    return fitting(row_names), fitting(names)


def choose(
    *,
    only: Sequence[str] = (),
    quick: bool = False,
    rounds: int | None = None,
    peer: bool = False,
    compiled: bool = True,
    divide: int | None = None,
) -> Plan:
    """The plan for these options. UsageError if a pattern of `only` names nothing.

    A pattern that names a row and no configuration narrows the rows; one that names a configuration, the
    configurations. `none` and the floor stay, and so does what a row is compared with: there is no ratio
    without them. What was named explicitly is measured even if --quick leaves it out. `compiled` says whether
    this host has a compiled hot path, so that pure Python is a choice.
    """
    space = configurations(compiled=compiled)
    if peer:
        space.append(Configuration(QEMU, "qemu"))
    wanted_rows, wanted_configurations = match(only, ROWS, space)
    if not wanted_rows:
        wanted_rows = set(QUICK_ROWS) if quick else {row.name for row in ROWS}
    names = wanted_rows | {row.reference for row in ROWS if row.name in wanted_rows}
    rows = [row for row in ROWS if row.name in names]
    kept = {NONE, FLOOR, QEMU} | (
        wanted_configurations
        or (set(QUICK_CONFIGURATIONS) if quick else {configuration.name for configuration in space})
    )
    return Plan(
        tuple(rows),
        tuple(configuration for configuration in space if configuration.name in kept),
        rounds if rounds is not None else 3 if quick else 7,
        divide if divide is not None else 2 if quick else 1,
        everything=bool(only),
    )
