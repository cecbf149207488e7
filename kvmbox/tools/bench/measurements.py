"""The jobs: how each measurement is made. What is measured is the product: `kvmbox run` in a process."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from kvmbox.base.errors import StartError
from kvmbox.base.value_classes import Value
from kvmbox.boot import bundled
from kvmbox.devices.pit.input_clock import CLK_HZ
from kvmbox.tools.bench import guest_output, peer, process_memory
from kvmbox.tools.bench.child import Child, MeasurementError, end_all
from kvmbox.tools.bench.measuring_plan import START_PREFIX, WARM_BOOTS, Configuration, Job, Plan, Row, words
from kvmbox.tools.bench.runner import StepResult

KVMBOX: Final = (sys.executable, "-P", "-c", "from kvmbox.cli.entry import entry_point; entry_point()")
FLOOR: Final = (
    sys.executable,
    "-P",
    "-c",
    "import sys; from kvmbox.tools.bench.floor import main; sys.exit(main(sys.argv[1:]))",
)
GUEST: Final = "bench"
NATIVE_GUEST: Final = "bench64"
"""The same at privilege level 3, which KVM runs natively where it emulates ring 0."""
START_GUEST: Final = "hello32"
COUNTED: Final = ("--stats", "--no-exit-samples")
"""Whoever looks at a run has its counters on. A look at registers would be measured, too."""
DISK_BYTES: Final = 16 << 20
"""What bench needs of a disk: see guests/bench_disk.c."""
BUSY_LOOP: Final = (sys.executable, "-S", "-c", "import os\nos.write(1, b'.')\nwhile True: pass")
"""A program that never sleeps, and says when it has begun."""
ECHO: Final = (
    *(sys.executable, "-S", "-c"),
    "import os, socket, sys\n"
    "listener = socket.socket(socket.AF_UNIX)\n"
    "listener.bind(sys.argv[1])\n"
    "listener.listen()\n"
    "os.write(1, b'.')\n"
    "wire, _ = listener.accept()\n"
    "while data := wire.recv(65536):\n"
    "    wire.sendall(data)",
)
"""The peer of one network interface: sends back all frames. It listens at a path, and says when it does."""
BEFORE_RUN: Final = "interpreter, imports, exit"
"""The part of a start that no stage of `kvmbox run --json` covers."""


def guests() -> str:
    """The folder of the guests. Raises StartError if they are not built."""
    if bundled.find(GUEST) is None:
        raise StartError(
            f"the guest '{GUEST}' is not built in {bundled.DIRECTORY}", hint="in a source tree: make guests"
        )
    return bundled.DIRECTORY


def in_nanoseconds(measured: guest_output.Measured, row: Row, tsc_khz: int) -> float | None:
    """The row's value out of what the guest measured, or None if it did not measure that."""
    value = measured.value(row.value)
    if value is None or row.unit == "times":
        return value
    wanted = measured.ticks * 1e9 / CLK_HZ
    return max(value * 1e6 / tsc_khz - wanted, 0.0)


def values_of(output: bytes, rows: Sequence[Row], tsc_khz: int) -> dict[str, float]:
    """Row → value of all `rows` that the guest's output has."""
    measured = guest_output.parse(output)
    found = {}
    for row in rows:
        if row.word in measured:
            value = in_nanoseconds(measured[row.word], row, tsc_khz)
            if value is not None:
                found[row.name] = value
    return found


def stages(facts: dict[str, Any], wall: int) -> dict[str, float]:
    """Row → ns of each part of a start, from what `kvmbox run --json` wrote and the whole process took."""
    found: dict[str, float] = {START_PREFIX + BEFORE_RUN: max(wall - int(facts["wall_time"]), 0)}
    before = 0
    for stage, at in facts["stages"].items():
        found[START_PREFIX + stage] = max(int(at) - before, 0)
        before = int(at)
    return found


class Jobs(Value):
    """Makes measurements.

    `images` is the directory of the guests, `cpu` where the vCPU of a single VM runs, `timeout` the seconds
    that a guest may take, `guest_cpus` how many CPUs it has. The first of them does all of the work.
    """

    plan: Plan
    images: str
    tsc_khz: int
    cpu: int
    timeout: float
    guest_cpus: int = 1

    def measure(self, job: Job, configuration: Configuration, rows: Sequence[Row]) -> StepResult:
        """Make one measurement. What goes wrong with it is in the outcome."""
        try:
            match job:
                case "accesses" | "native" | "graphics":
                    return self._accesses(configuration, rows)
                case "ata" | "virtio":
                    return self._disk(configuration, rows)
                case "network":
                    return self._network(configuration, rows)
                case "start":
                    return self._start(configuration)
                case "boots":
                    return self._boots(configuration, rows)
                case "memory":
                    return self._memory(configuration, rows)
                case "crowd":
                    return self._crowd(configuration, rows)
        except MeasurementError as error:
            return StepResult({}, str(error))

    def _kvmbox(self, configuration: Configuration, *arguments: str, bound: bool = True) -> Child:
        # All bytes of both consoles: the rows print lines of equal characters, and QEMU shows each.
        options = ["--debugcon", "stdout", "--pin", str(self.cpu) if bound else "auto"]
        options += ["--cpus", str(self.guest_cpus), "--timeout", f"{self.timeout:g}"]
        command = (*KVMBOX, "run", *options, *configuration.options, *arguments)
        return Child(command, timeout=self.timeout + 5, environment=configuration.environment)

    def _guest(
        self,
        configuration: Configuration,
        asked: str,
        *,
        guest: str = GUEST,
        bound: bool = True,
        shows: bool = False,
    ) -> Child:
        """The bench guest with the words `asked`. `bound`: on the CPU of measurements with one VM. `shows`:
        with a VGA.
        """
        image = os.path.join(self.images, f"{guest}.elf")
        if configuration.kind == "kvmbox":
            return self._kvmbox(configuration, *COUNTED, "--append", asked, guest, bound=bound)
        command = [*FLOOR, image, asked]
        if configuration.kind == "qemu":
            command = peer.command(image, asked.split(), self.guest_cpus) + ["-vga", "std"] * shows
        return Child(command, timeout=self.timeout, cpu=self.cpu if bound else None)

    def _accesses(self, configuration: Configuration, rows: Sequence[Row]) -> StepResult:
        guest = NATIVE_GUEST if rows[0].job == "native" else GUEST
        asked = " ".join(words(rows, self.plan))
        shows = rows[0].job == "graphics"
        return self._finish(self._guest(configuration, asked, guest=guest, shows=shows), configuration, rows)

    def _disk(self, configuration: Configuration, rows: Sequence[Row]) -> StepResult:
        """The host has the disk in memory. QEMU is not bound to one CPU: it reads by another thread."""
        virtio = rows[0].job == "virtio"
        asked = " ".join(words(rows, self.plan))
        with tempfile.TemporaryDirectory(prefix="kvmbox-bench-") as directory:
            path = os.path.join(directory, "disk.img")
            with open(path, "wb") as file:
                file.write(bytes(DISK_BYTES))
            if configuration.kind == "qemu":
                image = os.path.join(self.images, f"{GUEST}.elf")
                command = peer.disk_command(image, asked.split(), self.guest_cpus, path, virtio=virtio)
                return self._finish(Child(command, timeout=self.timeout), configuration, rows)
            disk = path.replace(",", ",,") + (",on=virtio" if virtio else "")
            arguments = (*COUNTED, "--disk", disk, "--append", asked, GUEST)
            return self._finish(self._kvmbox(configuration, *arguments), configuration, rows)

    def _network(self, configuration: Configuration, rows: Sequence[Row]) -> StepResult:
        """A program at the other end of a Unix socket sends back what it gets. QEMU as in `_disk`."""
        asked = " ".join(words(rows, self.plan))
        with tempfile.TemporaryDirectory(prefix="kvmbox-bench-") as directory:
            path = os.path.join(directory, "wire")
            with Child((*ECHO, path), timeout=self.timeout) as echo:
                if not echo.read_until(lambda: len(echo.output) > 0):
                    raise MeasurementError(f"the peer ended: {echo.reason(echo.finish())}")
                if configuration.kind == "qemu":
                    image = os.path.join(self.images, f"{GUEST}.elf")
                    command = peer.network_command(image, asked.split(), self.guest_cpus, path)
                    return self._finish(Child(command, timeout=self.timeout), configuration, rows)
                net = f"socket:unix:{path.replace(',', ',,')}"
                arguments = (*COUNTED, "--net", net, "--append", asked, GUEST)
                return self._finish(self._kvmbox(configuration, *arguments), configuration, rows)

    def _finish(self, child: Child, configuration: Configuration, rows: Sequence[Row]) -> StepResult:
        with child:
            status = child.finish()
        values = values_of(bytes(child.output), rows, self.tsc_khz)
        problem = ""
        expected = peer.ENDED if configuration.kind == "qemu" else 0
        if status != expected or len(values) < len(rows):
            problem = child.reason(status) if status != expected else "no result"
        return StepResult(values, problem)

    def _start_of_qemu(self, configuration: Configuration, row: str, *, bound: bool) -> StepResult:
        # QEMU has no port by which START_GUEST could end it; GUEST does as little, and has one.
        with self._guest(configuration, "bare=1", bound=bound) as child:
            status = child.finish()
            if status != peer.ENDED or child.ended is None:
                return StepResult({}, child.reason(status))
            return StepResult({row: child.ended - child.started})

    def _start(self, configuration: Configuration) -> StepResult:
        if configuration.kind == "qemu":
            return self._start_of_qemu(configuration, "start", bound=True)
        with tempfile.TemporaryDirectory(prefix="kvmbox-bench-") as directory:
            path = os.path.join(directory, "run.json")
            with self._kvmbox(configuration, "--json", path, "--no-exit-samples", START_GUEST) as child:
                status = child.finish()
                if status != 0 or child.ended is None:
                    return StepResult({}, child.reason(status))
                wall = child.ended - child.started
            try:
                with open(path, "rb") as file:
                    parts = stages(json.load(file), wall)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                return StepResult({"start": wall}, f"no stages: {error}")
        return StepResult({"start": wall} | parts)

    def _boots(self, configuration: Configuration, rows: Sequence[Row]) -> StepResult:
        (row,) = rows
        if configuration.kind == "qemu":
            return self._start_of_qemu(configuration, row.name, bound=False)
        from kvmbox.tools.warm.pool import WarmPool

        pairs = (("sandbox", configuration.sandbox), ("seccomp", configuration.seccomp))
        options: dict[str, Any] = {"image": GUEST, "append": "bare=1", "timeout": self.timeout}
        options |= {name: value for name, value in (*pairs, ("ipc", configuration.ipc)) if value}
        with WarmPool() as pool:
            first = pool.submit(options).result()  # the workers are warm from now on
            begun = time.monotonic_ns()
            results = [future.result() for future in [pool.submit(options) for _ in range(WARM_BOOTS)]]
            took = time.monotonic_ns() - begun
        for result in (first, *results):
            if result.status != 0:
                return StepResult({}, result.reason)
        return StepResult({row.name: took / WARM_BOOTS})

    def _memory(self, configuration: Configuration, rows: Sequence[Row]) -> StepResult:
        wanted = {row.name for row in rows}
        values: dict[str, float] = {}
        with self._guest(configuration, "hold", bound=False) as child:
            if not child.read_until(lambda: guest_output.HOLDING in child.output):
                return StepResult({}, child.reason(child.finish()))
            pids = process_memory.family(child.pid)
            if "pss" in wanted:
                values["pss"] = process_memory.pss(pids)
            try:
                if "memory_alone" in wanted:
                    values["memory_alone"] = process_memory.alone(pids)
            except MeasurementError as error:
                return StepResult(values, str(error))
        return StepResult(values)

    def _crowd(self, configuration: Configuration, rows: Sequence[Row]) -> StepResult:
        """IN from LSR with company: `vms_N` are N such guests, `load_N` is one beside N busy loops."""
        values: dict[str, float] = {}
        for row in rows:
            kind, _, count = row.name.partition("_")
            vms, loops = (int(count), 0) if kind == "vms" else (1, int(count))
            asked = " ".join(words([row], self.plan))
            with _busy_loops(loops, self.timeout), ExitStack() as cleanup:
                guests = [
                    cleanup.enter_context(self._guest(configuration, asked, bound=False)) for _ in range(vms)
                ]
                slowest = 0.0
                for child in guests:
                    outcome = self._finish(child, configuration, [row])
                    if outcome.problem:
                        return StepResult(values, outcome.problem)
                    slowest = max(slowest, outcome.values[row.name])
                values[row.name] = slowest
        return StepResult(values)


@contextmanager
def _busy_loops(count: int, timeout: float) -> Iterator[None]:
    """So many processes that never sleep, on any CPU. MeasurementError if one does not come to run."""
    loops: list[Child] = []
    try:
        for _ in range(count):
            loops.append(Child(BUSY_LOOP, timeout=timeout))
            loop = loops[-1]
            if not loop.read_until(lambda loop=loop: len(loop.output) > 0):  # type: ignore[misc]
                raise MeasurementError(f"a busy loop ended: {loop.reason(loop.finish())}")
        yield
    finally:
        end_all(loops)
