"""`kvmbox run --profile`, and sources of exits: a kernel whose functions are known, sampled while it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.runs import KVMBOX

SOURCE = Path(__file__).parent / "run_payload" / "profiled.c"
FLAGS = (
    *("-g", "-O1", "-fno-omit-frame-pointer", "-ffreestanding", "-nostdlib", "-static", "-fno-pic"),
    *("-no-pie", "-mno-red-zone", "-mno-sse", "-mno-80387", "-fno-stack-protector", "-fcf-protection=none"),
    *("-Wl,-Ttext=0x100000", "-Wl,--build-id=none"),
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (shutil.which("cc") and shutil.which("ld")):
        pytest.skip("cc or ld not found: the kernel cannot be built")
    made = tmp_path_factory.mktemp("profiled") / "profiled.elf"
    subprocess.run(["cc", *FLAGS, "-DROUNDS=40", "-o", made, SOURCE], check=True)
    return made


def kvmbox(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KVMBOX, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def counts(file: Path) -> dict[str, int]:
    lines = (line.rpartition(" ") for line in file.read_text().splitlines())
    return {stack: int(count) for stack, _, count in lines}


@pytest.mark.kvm
@pytest.mark.parametrize("sandbox", ["none", "thread", "process"])
def test_profile_tells_where_the_guest_was_and_who_called(image: Path, sandbox: str, tmp_path: Path) -> None:
    file = tmp_path / "run.folded"
    ended = kvmbox("run", image, "--profile", file, "--profile-rate", "500", "--sandbox", sandbox)
    assert (ended.returncode, ended.stdout) == (1, "." * 40)
    found = counts(file)
    assert found["_start;kernel;work;spin"] > 0
    assert found["_start;kernel;work;poll;[device access]"] > 0  # poll has no frame
    known = {"_start", "kernel", "work", "spin", "poll", "[device access]"}
    assert {name for stack in found for name in stack.split(";")} <= known


@pytest.mark.kvm
@pytest.mark.parametrize("bits", [32, 64])
def test_profile_of_a_kernel_without_frame_pointers_has_callers(bits: int, tmp_path: Path) -> None:
    if not (shutil.which("cc") and shutil.which("ld")):
        pytest.skip("cc or ld not found: the kernel cannot be built")
    image, file = tmp_path / "profiled.elf", tmp_path / "run.folded"
    flags = [f"-m{bits}", "-DROUNDS=40", "-fomit-frame-pointer", "-fno-optimize-sibling-calls"]
    subprocess.run(["cc", *FLAGS, *flags, "-o", image, SOURCE], check=True)
    assert kvmbox("run", image, "--profile", file, "--profile-rate", "500").returncode == 1
    found = counts(file)
    assert found["_start;kernel;work;spin"] > 0
    assert found["_start;kernel;work;poll;[device access]"] > 0


@pytest.mark.kvm
def test_profile_for_speedscope_has_files_and_is_read_again(image: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    assert kvmbox("run", image, "--profile", file, "--profile-rate", "500").returncode == 1
    found = json.loads(file.read_text())
    assert (found["name"], found["profiles"][0]["name"]) == ("profiled.elf", "CPU 0")
    spin = next(frame for frame in found["shared"]["frames"] if frame["name"] == "spin")
    assert spin["file"].endswith("profiled.c")
    names = [frame["name"] for frame in found["shared"]["frames"]]
    stacks = [[names[frame] for frame in stack] for stack in found["profiles"][0]["samples"]]
    assert ["_start", "kernel", "work", "spin"] in stacks
    # A vCPU whose device process a busy host gives no CPU does not pause in time: it has no stack.
    assert all(stack[0] == "_start" for stack in stacks if stack != ["[device access]"])
    shown = kvmbox("profile", file)
    assert shown.returncode == 0
    assert any(line.endswith("%  _start") for line in shown.stdout.splitlines())


@pytest.mark.kvm
def test_profile_has_each_cpu_and_a_halted_one_is_halted(tmp_path: Path) -> None:
    file = tmp_path / "run.folded"
    ended = kvmbox("run", "smp", "--cpus", "2", "--profile", file, "--profile-rate", "1000")
    assert ended.returncode == 0, ended.stderr
    assert {stack.split(";")[0] for stack in counts(file)} == {"CPU 0", "CPU 1"}


@pytest.mark.kvm
def test_profile_that_cannot_be_written_is_a_failure_of_kvmbox(image: Path) -> None:
    ended = kvmbox("run", image, "--profile", "/dev/full")
    assert ended.returncode == 14
    assert "cannot write the profile '/dev/full': No space left on device" in ended.stderr


@pytest.mark.kvm
def test_profile_that_is_lost_with_a_guest_that_failed_is_told_too(image: Path) -> None:
    ended = kvmbox("run", image, "--profile", "/dev/full", "--fail-on", "..")
    assert ended.returncode == 12
    assert "cannot write the profile '/dev/full': No space left on device" in ended.stderr


@pytest.mark.kvm
def test_guest_that_is_halted_for_ever_ends_while_it_is_sampled(tmp_path: Path) -> None:
    image = tmp_path / "halt.bin"
    image.write_bytes(b"\xfa\xf4")  # cli; hlt
    file = tmp_path / "run.folded"
    options = ("--boot", "real", "--profile", file, "--profile-rate", "1000")
    assert kvmbox("run", image, *options).returncode == 6
    assert counts(file)["0x7c01;[halted]"] > 0


@pytest.mark.kvm
@pytest.mark.parametrize("pure", [False, True])
def test_statistics_tell_which_function_makes_the_exits(image: Path, pure: bool, tmp_path: Path) -> None:
    environment = os.environ | ({"KVMBOX_PURE": "1"} if pure else {})
    file = tmp_path / "run.json"
    ended = kvmbox("run", image, "--stats", "--json", file, environment=environment)
    assert ended.returncode == 1
    data = json.loads(file.read_text())
    found = data["exit_sources"]
    assert 64 <= found["sampled"] <= found["exits"]
    first = found["sources"][0]
    assert (first["access"], first["address"], first["size"]) == ("in", 0x3FD, 1)
    assert first["place"].startswith("poll+0x")
    assert first["share"] > 0.9
    assert f"% in 0x03fd size 1 {first['place']}" in " ".join(ended.stderr.split())
    # What the look at them has cost is not among them: 40 rounds of 400 reads and a write, and the end. KVM
    # coalesces the writes after some of them.
    assert 40 * 400 + 1 < found["exits"] <= 40 * 401 + 1


@pytest.mark.kvm
def test_statistics_without_samples_of_exits(image: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    ended = kvmbox("run", image, "--stats", "--json", file, "--no-exit-samples")
    assert "exits come from" not in ended.stderr
    assert json.loads(file.read_text())["exit_sources"] == {}
