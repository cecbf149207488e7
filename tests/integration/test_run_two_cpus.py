"""Two vCPU threads on the same devices: no access is lost or counted twice, and no sleep ends too much."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import patience
from tests.support.selection import first_per_commit

pytestmark = pytest.mark.kvm

ROOT = Path(__file__).parents[2]
PAYLOAD = Path(__file__).parent / "run_payload"
COUNT = 5000
DESIGNS = [
    ("process", "socketpair"),
    ("none", ""),
    ("thread", "pipe"),
    ("process", "pipe"),
    ("process", "shm"),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Builds the guest with one of its ends; gives its path."""
    if not (shutil.which("cc") and shutil.which("ld")):
        pytest.skip("cc or ld not found: the guest cannot be built")
    directory = tmp_path_factory.mktemp("two_cpus")

    def build(end: int) -> Path:
        guests = ROOT / "guests"
        source, image = directory / f"{end}.o", directory / f"{end}.elf"
        defines = (f"-DCOUNT={COUNT}", f"-DEND={end}")
        subprocess.run(
            ["cc", "-m32", "-march=i386", "-I", guests, *defines, "-c", "-o", source, PAYLOAD / "two_cpus.S"],
            check=True,
        )
        script = guests / "common" / "elf.ld"
        subprocess.run(
            ["ld", "-m", "elf_i386", "-static", "-z", "noexecstack", "-T", script, "-o", image, source],
            check=True,
        )
        return image

    return build


def run(image: Path, sandbox: str, ipc: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, PAYLOAD / "two_cpus.py", image, sandbox, ipc],
        capture_output=True,
        text=True,
        check=False,
        timeout=patience(200),
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def reads_of_com1(result: dict[str, Any]) -> int:
    return int(result["stats"]["device_accesses"]["COM1"]["reads"])


@pytest.mark.parametrize("design", first_per_commit(DESIGNS), ids="-".join)
def test_reads_of_both_cpus_are_each_made_and_counted_once(image: Any, design: tuple[str, str]) -> None:
    result = run(image(0), *design)
    assert (result["status"], result["reason"]) == (0, "the guest shut down")
    assert reads_of_com1(result) == 2 * COUNT


def test_first_cpu_that_halts_for_ever_beside_one_that_works_ends_nothing(image: Any) -> None:
    result = run(image(2), "process", "socketpair")
    assert (result["status"], result["reason"]) == (0, "the guest shut down")
    assert reads_of_com1(result) == COUNT


def test_last_cpu_that_falls_asleep_ends_the_run_and_both_are_shown(image: Any) -> None:
    result = run(image(1), "process", "socketpair")
    assert result["status"] == 6
    assert result["reason"].endswith("hlt with interrupts off, and each of its 2 CPUs sleeps")
    assert re.fullmatch(r"CPU 0 is halted\nat .+\nCPU 1 is halted\nat .+", result["report"])
