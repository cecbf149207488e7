"""`--cpus` and `--cpu` through the command line, with the guest `smp` and small guests that execute CPUID."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kvmbox import Machine
from kvmbox.base.compiled import is_compiled
from kvmbox.boot import bundled
from kvmbox.kvm import Kvm, uapi
from kvmbox.kvm.cpuid.backend_limits import PVM
from kvmbox.kvm.cpuid.features import FEATURES, shown_in
from kvmbox.kvm.cpuid.leaves import find
from kvmbox.run.vcpu.processors import Processors, claimed_leaves, leaves_of
from kvmbox.tools.cpu_probe import Trial, examine_features
from tests.support.guest_table import backend
from tests.support.patience import patience
from tests.support.real_mode import HALT_FOR_EVER
from tests.support.runs import KVMBOX, Images, Run, error_lines, run_to_end
from tests.support.selection import first_per_commit
from tests.support.waiting import until

pytestmark = pytest.mark.kvm

KILLS = str(Path(__file__).parent / "run_payload" / "other_spawner.py")
DESIGNS = [
    ("--ipc", "socketpair"),
    ("--sandbox", "none"),
    ("--sandbox", "thread"),
    ("--sandbox", "per-device"),
    ("--seccomp", "strict"),
    ("--ipc", "pipe"),
    ("--ipc", "shm"),
]
LAST = "smp: all proven\n"


def smp() -> str:
    found = bundled.find("smp")
    if found is None:
        pytest.skip("the guest smp is not built: make guests")
    return found


def kvmbox(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one command line to its end."""
    command = [*KVMBOX, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience(120))


def proven(output: bytes, cpus: int) -> bool:
    text = output.decode()
    return text.startswith(f"smp: CPUs {cpus}\n") and text.endswith(LAST)


# --- Several CPUs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", [2, 3])
@pytest.mark.parametrize("design", first_per_commit(DESIGNS), ids=" ".join)
def test_each_design_runs_several_cpus(design: tuple[str, str], cpus: int) -> None:
    status, output, messages = run_to_end(Run(*design, "--cpus", str(cpus), smp()))
    assert status == 0, messages
    assert proven(output, cpus)


@pytest.mark.parametrize("pin", ["auto", "none", "first"])
def test_one_host_cpu_is_enough(pin: str) -> None:
    only = min(os.sched_getaffinity(0))
    run = Run(
        *("--pin", str(only) if pin == "first" else pin, "--cpus", "3", smp()),
        preexec_fn=lambda: os.sched_setaffinity(0, {only}),
    )
    status, output, messages = run_to_end(run)
    assert status == 0, messages
    assert proven(output, 3)


def test_as_many_cpus_as_there_can_be_start() -> None:
    status, output, messages = run_to_end(Run("--cpus", "32", "--timeout", f"{patience(100):g}", smp()))
    assert status == 0, messages
    assert proven(output, 32)


def test_machine_has_the_same_option() -> None:
    with Machine(smp(), cpus=2, timeout=patience(60)) as machine:
        result = machine.wait()
        assert machine.console is not None
        assert proven(machine.console.output, 2)
    assert result.status == 0


def test_first_vcpu_shares_the_cpu_of_the_devices_and_the_others_may_run_anywhere() -> None:
    allowed = os.sched_getaffinity(0)
    with Run("--cpus", "2", "--append", "end=spin", smp()) as run:
        run.stdout.until(LAST.encode())
        tasks = Path(f"/proc/{run.pid}/task")
        # KVM's own worker is a thread of the process, too, and has another name.
        ours = [int(task.name) for task in tasks.iterdir() if (task / "comm").read_text() == "kvmbox\n"]
        ours.remove(run.pid)
        # With compiled code, the thread that raises interrupt lines binds itself beside the first vCPU.
        expected = 1 + is_compiled() if len(allowed) > 1 else len(ours)
        masks = until(
            lambda: [os.sched_getaffinity(task) for task in ours],
            lambda masks: sum(len(mask) == 1 for mask in masks) >= expected,
        )
        of_main = os.sched_getaffinity(run.pid)
        run.signal(signal.SIGINT)
        assert run.status() == 130
    bound = [mask for mask in masks if len(mask) == 1]
    assert len(bound) == expected
    assert all(mask == bound[0] for mask in bound)
    assert all(mask in (allowed, bound[0]) for mask in masks)
    # The main thread steps aside for the first vCPU, for a moment now and then.
    assert of_main in (allowed, allowed - bound[0])


def test_cpus_that_were_never_started_are_named_in_the_report(images: Images) -> None:
    status, _, messages = run_to_end(images.run(HALT_FOR_EVER, "--cpus", "3"))
    assert status == 6
    assert "each of its 3 CPUs sleeps" in messages
    assert messages.count("\nat 0x") == 1
    assert [f"CPU {number} waits for a start-up IPI" in messages for number in range(3)] == [
        False,
        True,
        True,
    ]


def test_triple_fault_of_one_shows_all() -> None:
    status, _, messages = run_to_end(Run("--cpus", "3", "--append", "end=fault", smp()))
    assert status == 6
    assert error_lines(messages) == ["kvmbox: error: the guest crashed: triple fault of CPU 2"]
    lines = messages.splitlines()
    crashed, first, second = (
        lines.index("CPU 2"),
        *(
            next(at for at, line in enumerate(lines) if re.fullmatch(rf"CPU {number}( is halted)?", line))
            for number in (0, 1)
        ),
    )
    assert crashed < first < second
    assert messages.count("mode, CPL 0, RIP=") == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_cpus_that_spin(number: int) -> None:
    with Run("--cpus", "3", "--append", "end=spin", smp()) as run:
        run.stdout.until(LAST.encode())
        run.signal(number)
        assert run.status() == 130


def test_statistics_tell_the_exits_of_each_cpu(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    status, _, messages = run_to_end(Run("--cpus", "3", "--stats", "--json", str(report), smp()))
    assert status == 0
    found = json.loads(report.read_bytes())
    each = found["exits_by_cpu"]
    assert len(each) == 3
    assert all(count > 0 for count in each)
    assert sum(each) == found["exits"]
    for number, count in enumerate(each):
        assert re.search(rf"^  CPU {number} +{count}$", messages, re.MULTILINE)


def test_recording_of_several_cpus_replays_identically(tmp_path: Path) -> None:
    path = tmp_path / "run.rec"
    status, _, messages = run_to_end(Run("--cpus", "2", "--record", str(path), smp()))
    assert status == 0, messages
    done = kvmbox("replay", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " replies are identical" in done.stdout
    dumped = kvmbox("replay", "--dump", path)
    assert dumped.returncode == 0


@pytest.mark.parametrize("entry", ["leave", "never", "tires"])
def test_device_process_that_is_lost_under_several_cpus_is_restarted(entry: str) -> None:
    command = (sys.executable, KILLS, "uart", entry, "1000")
    status, output, messages = run_to_end(
        Run("--on-device-crash", "restart", "--cpus", "2", smp(), command=command)
    )
    assert status == 0, messages
    assert proven(output, 2)
    assert "restarted, " in messages


# --- What CPUID shows --------------------------------------------------------------------------------------


def cpuid_bit(name: str) -> bytes:
    """mov eax,leaf; mov ecx,subleaf; cpuid; the bit to bit 0 of AL; out to debug-exit: status 1 or 3."""
    function, index, register, bit = FEATURES[name]
    move = {"eax": b"", "ebx": b"\x66\x89\xd8", "ecx": b"\x66\x89\xc8", "edx": b"\x66\x89\xd0"}[register]
    load = b"\x66\xb8" + function.to_bytes(4, "little") + b"\x66\xb9" + index.to_bytes(4, "little")
    shift = b"\x66\xc1\xe8" + bytes((bit,)) + b"\x24\x01"  # shr eax,bit; and al,1
    return load + b"\x0f\xa2" + move + shift + b"\xe6\xf4\xf4"


def shows(images: Images, name: str, *options: str) -> bool:
    status, _, messages = run_to_end(images.run(cpuid_bit(name), *options))
    assert status in (1, 3), messages
    return status == 3


def claimed() -> set[str]:
    with Kvm.open() as kvm:
        return set(shown_in(claimed_leaves(kvm)))


def test_feature_is_shown_hidden_and_added(images: Images) -> None:
    if "cx16" not in claimed():
        pytest.skip("this KVM does not claim cx16")
    assert shows(images, "cx16", "--cpu", "max")
    assert not shows(images, "cx16", "--cpu", "max,-cx16")
    assert not shows(images, "cx16", "--cpu", "none")
    assert shows(images, "cx16", "--cpu", "none,+cmpxchg16b")


def test_default_hides_what_kvm_claims_and_cannot_run(images: Images) -> None:
    if "cx16" not in claimed():
        pytest.skip("this KVM does not claim cx16")
    assert shows(images, "cx16") == (backend() != "pvm")
    assert shows(images, "cx16", "--cpu", "host,+cx16")


def test_none_shows_no_hypervisor(images: Images) -> None:
    assert shows(images, "hypervisor")
    assert not shows(images, "hypervisor", "--cpu", "none")


def test_feature_that_kvm_does_not_claim_cannot_be_added(images: Images) -> None:
    status, _, messages = run_to_end(images.run(HALT_FOR_EVER, "--cpu", "max,+ia64"))
    assert status == 4
    assert error_lines(messages) == [
        "kvmbox: error: --cpu +ia64: this host's KVM does not support ia64 (leaf 0x1.0 EDX bit 30)"
    ]


def test_misspelt_feature_is_refused_before_anything_starts(images: Images) -> None:
    status, _, messages = run_to_end(images.run(HALT_FOR_EVER, "--cpu", "host,-popcount"))
    assert status == 2
    assert "hint: close to it: popcnt" in messages


def test_mask_without_effect_is_told_once(images: Images) -> None:
    _, _, messages = run_to_end(images.run(cpuid_bit("avx"), "--cpu", "none"))
    told = [line for line in messages.splitlines() if "shows all the same" in line]
    with Kvm.open() as kvm, kvm.create_vm() as vm:
        vm.create_irqchip()
        not_hidden = Processors(kvm, vm, cpus=1, cpu="none").not_hidden
    assert told == (
        [f"kvmbox: --cpu none: this host's KVM shows all the same: {', '.join(not_hidden)}"]
        if not_hidden
        else []
    )
    assert backend() == "pvm" or not not_hidden


@pytest.mark.parametrize("model", ["host", "max", "none"])
def test_kvm_takes_the_leaves_of_every_vcpu_as_they_are(model: str) -> None:
    cpus = 4
    with Kvm.open() as kvm, kvm.create_vm() as vm:
        vm.create_irqchip()
        made = Processors(kvm, vm, cpus=cpus, cpu=model)
        assert [vcpu.get_mp_state() for vcpu in made.vcpus] == [
            uapi.KVM_MP_STATE_RUNNABLE,
            *[uapi.KVM_MP_STATE_UNINITIALIZED] * (cpus - 1),
        ]
        for number, vcpu in enumerate(made.vcpus):
            seen = leaves_of(vcpu.get_cpuid())
            basic, cores = find(seen, 1), find(seen, 0xB, 1)
            assert basic is not None
            assert (basic.ebx >> 24, basic.ebx >> 16 & 0xFF) == (number, cpus)
            if cores is not None:
                assert (cores.eax, cores.ebx, cores.edx) == (2, cpus, number)


# --- What really runs --------------------------------------------------------------------------------------


def test_what_is_hidden_by_default_does_not_run_and_what_is_shown_does() -> None:
    with Kvm.open() as kvm:
        states = {state.name: state for state in examine_features(kvm, "host")}
    assert states["tsc"].trial is Trial.RUNS
    assert states["cx8"].trial is Trial.RUNS
    if backend() == "pvm":
        for name in PVM.keys() & states.keys():
            assert states[name].trial in (None, Trial.REFUSED, Trial.FAULTS, Trial.DIFFERS), name
    else:
        broken = [
            name for name, state in states.items() if state.shown and state.trial not in (None, Trial.RUNS)
        ]
        assert broken == []


def test_doctor_lists_each_feature_in_a_line() -> None:
    done = kvmbox("doctor", "--cpu")
    assert done.returncode == 0, done.stderr
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == [
        *("feature", "host", "KVM", "in", "a", "guest's", "ring", "0"),
        *("a", "guest", "sees", "it", "(--cpu", "host)"),
    ]
    assert [line.split()[0] for line in lines[:1]] == ["fpu"]
    assert {line.split()[0] for line in lines} >= claimed()
