"""The jobs: how each measurement is made. What is measured is the product: `kvmbox run` in a process."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from kvmbox.bench import guest_output, memory, peer
from kvmbox.bench.child import Child, MeasurementError, end_all
from kvmbox.bench.plan import IDLE_VMS, START_PREFIX, WARM_BOOTS, Configuration, Job, Plan, Row, words
from kvmbox.bench.runner import Outcome

KVMBOX: Final = (sys.executable, "-P", "-c", "from kvmbox.cli.entry import entry_point; entry_point()")
FLOOR: Final = (
    sys.executable,
    "-P",
    "-c",
    "import sys; from kvmbox.bench.floor import main; sys.exit(main(sys.argv[1:]))",
)
GUEST: Final = "bench"
NATIVE_GUEST: Final = "bench64"
"""The same at privilege level 3, which KVM runs natively where it emulates ring 0."""
START_GUEST: Final = "hello32"
PIT_HZ: Final = 1_193_182
MORE_PORTS: Final = ("COM1=stdio", "COM2=null", "COM3=null", "COM4=null")
BEFORE_RUN: Final = "interpreter, imports, exit"
"""The part of a start that no stage of `kvmbox run --json` covers."""


def in_nanoseconds(measured: guest_output.Measured, row: Row, tsc_khz: int) -> float | None:
    """The row's value out of what the guest measured, or None if it did not measure that."""
    value = measured.value(row.value)
    if value is None or row.unit == "times":
        return value
    wanted = measured.ticks * 1e9 / PIT_HZ
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


@dataclass(frozen=True, slots=True)
class Jobs:
    """Makes measurements.

    `images` is the directory of the guests, `cpu` where the vCPU of a single VM runs, `timeout` the seconds
    that a guest may take.
    """

    plan: Plan
    images: str
    tsc_khz: int
    cpu: int
    timeout: float

    def measure(self, job: Job, configuration: Configuration, rows: Sequence[Row]) -> Outcome:
        """Make one measurement. What goes wrong with it is in the outcome."""
        try:
            match job:
                case "accesses" | "native":
                    return self._accesses(configuration, rows)
                case "start":
                    return self._start(configuration)
                case "boots":
                    return self._boots(configuration, rows)
                case "memory":
                    return self._memory(configuration)
                case "crowd":
                    return self._crowd(configuration, rows)
                case "neighbours":
                    return self._neighbours(configuration, rows)
                case "devices":
                    return self._devices(configuration, rows)
        except MeasurementError as error:
            return Outcome({}, str(error))

    def _kvmbox(self, configuration: Configuration, *arguments: str, pin: str | None = None) -> Child:
        pin = str(self.cpu) if pin is None else pin
        # All bytes of both consoles: the rows print lines of equal characters, and QEMU shows each.
        options = ("--debugcon", "stdout", "--pin", pin, "--timeout", f"{self.timeout:g}")
        words = (*options, *configuration.options, *arguments)
        return Child((*KVMBOX, "run", *words), timeout=self.timeout + 5)

    def _accesses(self, configuration: Configuration, rows: Sequence[Row]) -> Outcome:
        guest = NATIVE_GUEST if rows[0].job == "native" else GUEST
        asked = words(rows, self.plan)
        if configuration.kind == "qemu":
            command = peer.command(os.path.join(self.images, f"{guest}.elf"), asked)
            return self._finish(Child(command, timeout=self.timeout, cpu=self.cpu), rows, peer.ENDED)
        if configuration.kind == "floor":
            command = [*FLOOR, os.path.join(self.images, f"{guest}.elf"), " ".join(asked)]
            return self._finish(Child(command, timeout=self.timeout, cpu=self.cpu), rows)
        # --stats: whoever looks at a run has its counters on.
        return self._finish(self._kvmbox(configuration, "--stats", "--append", " ".join(asked), guest), rows)

    def _finish(self, child: Child, rows: Sequence[Row], expected: int = 0) -> Outcome:
        with child:
            status = child.finish()
        values = values_of(bytes(child.output), rows, self.tsc_khz)
        problem = ""
        if status != expected or len(values) < len(rows):
            problem = child.reason(status) if status != expected else "no result"
        return Outcome(values, problem)

    def _start(self, configuration: Configuration) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="kvmbox-bench-") as directory:
            path = os.path.join(directory, "run.json")
            with self._kvmbox(configuration, "--json", path, START_GUEST) as child:
                status = child.finish()
                if status != 0 or child.ended is None:
                    return Outcome({}, child.reason(status))
                wall = child.ended - child.started
            try:
                with open(path, "rb") as file:
                    parts = stages(json.load(file), wall)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                return Outcome({"start": wall}, f"no stages: {error}")
        return Outcome({"start": wall} | parts)

    def _boots(self, configuration: Configuration, rows: Sequence[Row]) -> Outcome:
        (row,) = rows
        if configuration.kind == "qemu":
            command = peer.command(os.path.join(self.images, f"{GUEST}.elf"), ())
            with Child(command, timeout=self.timeout) as child:
                status = child.finish()
                if status != peer.ENDED or child.ended is None:
                    return Outcome({}, child.reason(status))
                return Outcome({row.name: child.ended - child.started})
        from kvmbox.warm.pool import WarmPool

        pairs = (("sandbox", configuration.sandbox), ("seccomp", configuration.seccomp))
        options: dict[str, Any] = {"image": GUEST, "timeout": self.timeout}
        options |= {name: value for name, value in (*pairs, ("ipc", configuration.ipc)) if value}
        with WarmPool() as pool:
            first = pool.submit(options).result()  # the workers are warm from now on
            begun = time.monotonic_ns()
            results = [future.result() for future in [pool.submit(options) for _ in range(WARM_BOOTS)]]
            took = time.monotonic_ns() - begun
        for result in (first, *results):
            if result.status != 0:
                return Outcome({}, result.reason)
        return Outcome({row.name: took / WARM_BOOTS})

    def _holding(self, configuration: Configuration) -> Child:
        return self._kvmbox(configuration, "--append", "hold", GUEST, pin="auto")

    def _wait_holding(self, child: Child) -> None:
        if not child.read_until(lambda: guest_output.HOLDING in child.output):
            raise MeasurementError(child.reason(child.finish()))

    def _memory(self, configuration: Configuration) -> Outcome:
        with self._holding(configuration) as child:
            self._wait_holding(child)
            pids = memory.family(child.pid)
            values: dict[str, float] = {"pss": memory.pss(pids)}
            try:
                values["memory_alone"] = memory.alone(pids)
            except MeasurementError as error:
                return Outcome(values, str(error))
        return Outcome(values)

    def _busy(
        self, configuration: Configuration, rows: Sequence[Row], *options: str, pin: str | None
    ) -> Child:
        text = " ".join(words(rows, self.plan))
        return self._kvmbox(configuration, *options, "--append", text, GUEST, pin=pin)

    def _crowd(self, configuration: Configuration, rows: Sequence[Row]) -> Outcome:
        values: dict[str, float] = {}
        for row in rows:
            with ExitStack() as cleanup:
                children = [
                    cleanup.enter_context(self._busy(configuration, [row], pin="auto"))
                    for _ in range(int(row.name.rpartition("_")[2]))
                ]
                slowest = 0.0
                for child in children:
                    outcome = self._finish(child, [row])
                    if outcome.problem:
                        return Outcome(values, outcome.problem)
                    slowest = max(slowest, outcome.values[row.name])
                values[row.name] = slowest
        return Outcome(values)

    def _neighbours(self, configuration: Configuration, rows: Sequence[Row]) -> Outcome:
        idle: list[Child] = []
        try:
            for _ in range(IDLE_VMS):
                idle.append(self._holding(configuration))
                self._wait_holding(idle[-1])
            return self._finish(self._busy(configuration, rows, pin="auto"), rows)
        finally:
            end_all(idle)

    def _devices(self, configuration: Configuration, rows: Sequence[Row]) -> Outcome:
        values: dict[str, float] = {}
        many = [word for port in MORE_PORTS for word in ("--serial", port)]
        for row in rows:
            options = many if row.name == "devices_many" else []
            outcome = self._finish(self._busy(configuration, [row], *options, pin=None), [row])
            values |= outcome.values
            if outcome.problem:
                return Outcome(values, outcome.problem)
        return Outcome(values)
