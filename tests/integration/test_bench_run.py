"""`kvmbox bench` on the real /dev/kvm, with so few iterations that no number means anything."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from kvmbox.boot import bundled
from kvmbox.kvm.system import Kvm
from kvmbox.tools.bench import floor, guest_output
from kvmbox.tools.bench.measuring_plan import ROWS
from kvmbox.tools.bench.results import load
from tests.support.patience import patience
from tests.support.runs import KVMBOX

TINY = ("--repeat", "1", "--divide", "1000", "--timeout", f"{patience(60):g}")
DEFAULT = "process/filter/socketpair"


def image(name: str) -> str:
    path = bundled.find(name)
    assert path is not None, "make guests"
    return str(path)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KVMBOX, "bench", *arguments], capture_output=True, text=True, check=False, timeout=patience(300)
    )


@pytest.mark.kvm
@pytest.mark.thorough
def test_bench_measures_every_kind_of_job(tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    rows = (
        "inb_from_device",
        "inb_p99",
        "thr_irq",
        "hlt_latency_p50",
        "post_cpl3",
        "start",
        "warm_boot",
        "vms_2",
        "load_1",
    )
    only = [word for name in (*rows, DEFAULT) for word in ("--only", name)]
    done = bench(*TINY, *only, "--json", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    results = load(str(path))
    assert results.failures == {}
    assert results.finished
    for row in (*rows, "vms_1"):
        assert len(results.values(row, DEFAULT)) == 1, row
        assert results.values(row, DEFAULT)[0] > 0, row
    for row in ("inb_from_device", "inb_p99", "post_cpl3"):
        assert len(results.values(row, "floor")) == 1, row
    assert any(row.name.startswith("start: ") for row in results.rows)
    for row in rows:
        assert f"{row}: " in done.stdout
    assert "the cost of isolation, as multiples of the time without isolation" in done.stdout
    assert results.facts["kvm_backend"] in ("vmx", "svm", "pvm", "unknown")


@pytest.mark.kvm
@pytest.mark.root
def test_bench_measures_the_memory_of_all_processes_and_has_json_on_stdout(tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    done = bench(*TINY, "--only", "pss", "--only", "memory_alone", "--only", DEFAULT, "--json", "-")
    assert done.returncode == 0, done.stderr
    assert "pss: " in done.stderr
    path.write_text(done.stdout)
    results = load(str(path))
    assert results.values("pss", DEFAULT)[0] > results.values("pss", "none")[0] > 1 << 20
    assert results.values("memory_alone", DEFAULT)[0] >= results.values("pss", DEFAULT)[0]


@pytest.mark.kvm
def test_floor_runs_the_bench_guest_without_kvmbox() -> None:
    output = floor.run(
        image("bench"), "inb_from_device=50,dist outb_to_device=50 thr_polled=64 mov_from_device=9"
    )
    measured = guest_output.parse(output)
    assert set(measured) == {"inb_from_device", "outb_to_device", "thr_polled", "mov_from_device"}
    assert measured["inb_from_device"].value("p99") is not None


@pytest.mark.kvm
def test_every_row_asks_for_a_test_that_the_guest_has() -> None:
    for guest, job in (("bench", "accesses"), ("bench64", "native")):
        wanted = {row.word for row in ROWS if row.job == job}
        assert wanted <= set(re.findall(r"\w+", floor.run(image(guest), "list").decode()))


@pytest.mark.kvm
def test_tsc_rate_of_a_guest_is_told_in_khz() -> None:
    with Kvm.open() as kvm, kvm.create_vm() as vm, vm.create_vcpu(0) as vcpu:
        assert vcpu.fileno() > 2
        assert 100_000 < vcpu.tsc_khz() < 10_000_000
    assert vcpu.fileno() == -1


@pytest.mark.kvm
def test_bench_that_is_interrupted_shows_what_there_is_and_ends_its_guests(tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    command = [*KVMBOX, "bench", "--only", "bare", "--only", "none", "--repeat", "1000", "--json", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        # It measures as soon as it has a child of its own.
        while not _children(child.pid):
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=patience(60))
    assert child.returncode == 130
    assert "(not finished)" in out
    assert "kvmbox: interrupted" in err
    assert json.loads(path.read_text(encoding="utf-8"))["finished"] is False


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()


@pytest.mark.kvm
def test_guests_that_all_run_out_of_time_give_4_and_the_reason() -> None:
    done = bench(*TINY, "--only", "bare", "--only", "none", "--timeout", "0.001")
    assert done.returncode == 4
    assert "nothing could be measured" in done.stderr
    assert "not measured" in done.stdout
    assert "no end within 0.001 s" in done.stdout
