"""From the guest's words to rows, and the peer's command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest

from kvmbox.base.errors import StartError
from kvmbox.devices.pit.input_clock import CLK_HZ
from kvmbox.tools.bench import measurements, peer
from kvmbox.tools.bench.child import MeasurementError
from kvmbox.tools.bench.measurements import BUSY_LOOP, Jobs, stages, values_of
from kvmbox.tools.bench.measuring_plan import Job, Plan, choose
from kvmbox.tools.bench.runner import StepResult

TSC_KHZ = 2_000_000  # two cycles to the nanosecond


def test_cycles_become_nanoseconds_of_each_row() -> None:
    rows = choose(only=["inb_from_device", "inb_p99", "post"]).rows
    output = (
        b"bench inb_from_device iterations=100 cycles=2000000\n"
        b"bench inb_from_device samples=100 min=1 p50=20 p90=3 p99=50 max=60\n"
    )
    assert values_of(output, rows, TSC_KHZ) == {"inb_from_device": 10_000.0, "inb_p99": 2.5}


def test_latency_is_what_comes_after_the_time_that_was_asked_for() -> None:
    rows = choose(only=["hlt_latency_p50"]).rows
    ticks = 1193
    late = 40_000
    cycles = round((ticks * 1e9 / CLK_HZ + late) * 2)
    output = (
        b"bench hlt_latency iterations=9 cycles=%d ticks=%d\n"
        b"bench hlt_latency samples=9 min=1 p50=%d p90=3 p99=4 max=5\n" % (cycles * 9, ticks, cycles)
    )
    assert values_of(output, rows, TSC_KHZ)["hlt_latency_p50"] == pytest.approx(late, abs=1)


def test_latency_is_never_negative() -> None:
    rows = choose(only=["hlt_latency_p50"]).rows
    output = b"bench hlt_latency iterations=1 cycles=5 ticks=1193\nbench hlt_latency samples=1 p50=5\n"
    assert values_of(output, rows, TSC_KHZ) == {"hlt_latency_p50": 0.0}


def test_stages_of_a_start_add_up_to_the_whole() -> None:
    found = stages({"wall_time": 90, "stages": {"one": 20, "two": 50, "end": 90}}, 140)
    assert found == {
        "start: interpreter, imports, exit": 50,
        "start: one": 20,
        "start: two": 30,
        "start: end": 40,
    }
    assert sum(found.values()) == 140


def test_stages_that_are_no_numbers_are_an_error_that_the_job_expects() -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        stages({"wall_time": 1, "stages": {"one": None}}, 5)


def test_qemu_gets_the_same_image_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/qemu-system-x86_64")
    command = peer.command("/images/bench.elf", ["post=5", "inb_from_device=7"])
    assert command[0] == "/usr/bin/qemu-system-x86_64"
    assert command[command.index("-kernel") + 1] == "/images/bench.elf"
    assert command[command.index("-append") + 1] == "post=5 inb_from_device=7"
    assert "isa-debug-exit,iobase=0xf4,iosize=4" in command


def test_missing_qemu_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(StartError, match="qemu-system-x86_64 is not installed"):
        peer.find()
    assert peer.version() == ""


def test_qemu_has_as_many_cpus_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/qemu-system-x86_64")
    command = peer.command("/images/bench.elf", [], 3)
    assert command[command.index("-smp") + 1] == "3"


# --- What is started for a measurement ----------------------------------------------------------------------


class FakeChild:
    """A process that prints what the bench guest would, and has its place in the log of all of them."""

    log: list[str]
    """"+NAME" for each start and "-NAME" for each end; NAME is "loop" or "guest"."""
    commands: list[Sequence[str]]
    environments: list[Mapping[str, str]]
    cpus: list[int | None]
    cycles: list[int]
    """What each guest in turn measured."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        cpu: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        assert timeout > 0
        self.name = "loop" if tuple(command) == BUSY_LOOP else "guest"
        self.output = b"." if self.name == "loop" else b""
        self.started, self.ended = 1_000, 5_000
        self.log.append("+" + self.name)
        if self.name == "guest":
            self.commands.append(command)
            self.environments.append(environment or {})
            self.cpus.append(cpu)

    def read_until(self, enough: Callable[[], bool]) -> bool:
        return enough()

    def finish(self) -> int:
        cycles = self.cycles.pop(0) if self.cycles else 2_000
        self.output = b"bench inb_from_device iterations=1 cycles=%d\n" % cycles
        return peer.ENDED if "qemu" in self.commands[-1][0] else 0

    def reason(self, status: int | None) -> str:
        return f"status {status}"

    def end(self) -> None:
        self.log.append("-" + self.name)

    def __enter__(self) -> FakeChild:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> type[FakeChild]:
    def end_all(children: Iterable[FakeChild]) -> None:
        for child in children:
            child.end()

    FakeChild.log, FakeChild.commands, FakeChild.environments = [], [], []
    FakeChild.cpus, FakeChild.cycles = [], []
    monkeypatch.setattr(measurements, "Child", FakeChild)
    monkeypatch.setattr(measurements, "end_all", end_all)
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/qemu-system-x86_64")
    return FakeChild


def measure(plan: Plan, job: Job, name: str, guest_cpus: int = 1) -> StepResult:
    made = Jobs(plan, "/images", TSC_KHZ, 1, 60.0, guest_cpus)
    configuration = next(one for one in plan.configurations if one.name == name)
    return made.measure(job, configuration, plan.rows_of(job, configuration))


def test_load_is_one_guest_beside_so_many_loops_that_end_with_it(children: type[FakeChild]) -> None:
    plan = choose(only=["load_2", "none"])
    outcome = measure(plan, "crowd", "none")
    assert (outcome.problem, set(outcome.values)) == ("", {"vms_1", "load_2"})
    # Without its loops it is measured first. A guest is ended when it was read, and by who started it.
    first = children.log.index("+loop")
    assert set(children.log[:first]) == {"+guest", "-guest"}
    assert children.log[first : first + 3] == ["+loop", "+loop", "+guest"]
    assert children.log[-2:] == ["-loop", "-loop"]


def test_loop_that_does_not_come_to_run_is_the_reason(
    children: type[FakeChild], monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(_self: FakeChild, _enough: Callable[[], bool]) -> bool:
        raise MeasurementError("no end within 60 s")

    monkeypatch.setattr(children, "read_until", late)
    outcome = measure(choose(only=["load_1", "none"]), "crowd", "none")
    assert outcome == StepResult({}, "no end within 60 s")
    assert children.log.count("+loop") == children.log.count("-loop") == 1


def test_crowd_is_as_slow_as_its_slowest_vm(children: type[FakeChild]) -> None:
    children.cycles = [2_000, 9_000, 3_000]  # vms_1, and the two of vms_2
    outcome = measure(choose(only=["vms_2", "none"]), "crowd", "none")
    assert outcome.values == {"vms_1": 1_000.0, "vms_2": 4_500.0}


def test_crowd_is_left_to_the_placement_and_a_single_vm_is_bound(children: type[FakeChild]) -> None:
    plan = choose(only=["vms_1", "inb_from_device"], peer=True)
    for name in ("none", "qemu"):
        measure(plan, "accesses", name)
        measure(plan, "crowd", name)
    pins = [command[command.index("--pin") + 1] for command in children.commands[:2]]
    assert pins == ["1", "auto"]
    assert children.cpus[2:] == [1, None]


def test_pure_python_is_asked_for_by_the_environment(children: type[FakeChild]) -> None:
    plan = choose(only=["inb_from_device", "*none"])
    assert measure(plan, "accesses", "none").values == measure(plan, "accesses", "pure/none").values
    assert children.environments == [{}, {"KVMBOX_PURE": "1"}]


def test_guests_have_as_many_cpus_as_are_asked_for(children: type[FakeChild]) -> None:
    plan = choose(only=["inb_from_device", "none"])
    measure(plan, "accesses", "none", guest_cpus=3)
    (command,) = children.commands
    assert command[command.index("--cpus") + 1] == "3"


def test_start_of_qemu_is_that_of_a_guest_that_it_can_end(children: type[FakeChild]) -> None:
    plan = choose(only=["start"], peer=True)
    assert measure(plan, "start", "qemu").values == {"start": 4_000.0}
    (command,) = children.commands
    assert command[command.index("-append") + 1] == "bare=1"
