"""The lab's parts, without an emulator: what it packs, in which order, whose status it believes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import __main__ as command
from tests.lab import machine, packages, selection
from tests.lab.archive import Archive
from tests.lab.machine import LabFailure, LabTimeout
from tests.lab.modules import ModuleProblem, dependencies, load_order
from tests.lab.variations import VARIATIONS, Host, apply
from tests.support.patience import patience

pytestmark = pytest.mark.thorough

# --- The archive -----------------------------------------------------------------------------------------


def entries(archive: bytes) -> list[tuple[str, int, bytes]]:
    """(name, mode, content) of each entry, read by the rules of buffer-format.rst."""
    found: list[tuple[str, int, bytes]] = []
    at = 0
    while True:
        assert at % 4 == 0
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        content_at = (at + 110 + name_size + 3) // 4 * 4
        if name == b"TRAILER!!!\0":
            return found
        found.append((name[:-1].decode(), mode, archive[content_at : content_at + size]))
        at = (content_at + size + 3) // 4 * 4


def test_archive_read_back_has_names_modes_and_contents_of_any_length() -> None:
    archive = Archive()
    archive.directory("bin")
    for length in range(6):
        archive.file("f" * (length + 1), b"x" * length, executable=length == 0)
    archive.device("dev/console", 5, 1)

    assert entries(archive.pack()) == [
        ("bin", 0o40755, b""),
        ("f", 0o100755, b""),
        *(("f" * (length + 1), 0o100644, b"x" * length) for length in range(1, 6)),
        ("dev/console", 0o20600, b""),
    ]


# --- Modules ---------------------------------------------------------------------------------------------


def module(depends: str) -> bytes:
    """What of a module's file counts here: its .modinfo section, between other sections."""
    return f"\x7fELF...\0license=GPL\0depends={depends}\0retpoline=Y\0...".encode()


TREE = {"kvm_amd": module("kvm,ccp"), "kvm": module("irqbypass"), "ccp": module(""), "irqbypass": module("")}


def content(name: str) -> bytes:
    if name not in TREE:
        raise ModuleProblem(f"no {name}")
    return TREE[name]


def test_load_order_puts_each_module_behind_what_it_needs_and_names_it_once() -> None:
    order = load_order(["kvm-amd", "kvm"], set(), content)

    assert [name for name, _ in order] == ["irqbypass", "kvm", "ccp", "kvm_amd"]
    assert dict(order) == TREE


def test_load_order_leaves_out_what_the_kernel_has_built_in() -> None:
    assert [name for name, _ in load_order(["kvm_amd"], {"kvm"}, content)] == ["ccp", "kvm_amd"]


def test_load_order_of_an_absent_module_is_refused() -> None:
    with pytest.raises(ModuleProblem, match="no overlay"):
        load_order(["kvm", "overlay"], set(), content)


def test_load_order_of_a_circle_is_refused() -> None:
    circle = {"a": module("b"), "b": module("a")}
    with pytest.raises(ModuleProblem, match="module a depends on itself"):
        load_order(["a"], set(), circle.__getitem__)


def test_module_without_modinfo_is_refused() -> None:
    with pytest.raises(ModuleProblem, match="depends"):
        dependencies(b"\x7fELF without that section")


# --- The work --------------------------------------------------------------------------------------------


def run_script(host: Host, *commands: list[str], directory: Path) -> tuple[int, str]:
    work = machine.script(commands, host, directory=directory, environment={"PATH": "/usr/bin:/bin"})
    done = subprocess.run(["sh", "-c", work], stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout


def test_script_ends_with_the_status_of_the_first_command_that_fails(tmp_path: Path) -> None:
    status, output = run_script(
        Host(), ["echo", "it's one"], ["sh", "-c", "exit 7"], ["echo", "never"], directory=tmp_path
    )
    assert (status, output) == (7, "it's one\n")


def test_script_gives_commands_their_directory_and_no_other_environment(tmp_path: Path) -> None:
    status, output = run_script(Host(), ["pwd"], ["env"], directory=tmp_path)
    assert (status, output) == (0, f"{tmp_path}\nPATH=/usr/bin:/bin\n")


def test_script_that_cannot_prepare_the_host_runs_nothing_and_says_so(tmp_path: Path) -> None:
    host = Host(preparation=["true", "grep -q x /no/such/file 2>/dev/null"])
    status, output = run_script(host, ["echo", "never"], directory=tmp_path)
    assert status == machine.NOT_PREPARED
    assert output == "lab: failed: grep -q x /no/such/file 2>/dev/null\n"


# --- QEMU, played by a shell script ----------------------------------------------------------------------

FIND_RESULTS = "for word; do case $word in *mount_tag=results*) r=${word#*path=}; r=${r%%,*};; esac; done\n"


class Emulator:
    """A stand-in for QEMU: `body` runs with $r, the directory that the machine would see as its results."""

    def __init__(self, directory: Path, body: str) -> None:
        self.path = directory / "emulator"
        self.path.write_text(f"#!/bin/sh\n{FIND_RESULTS}{body}\n")
        self.path.chmod(0o755)
        self.log = directory / "console.log"
        (directory / "boot").mkdir()
        (directory / "boot" / "vmlinuz-6.1").touch()
        self.directory = directory

    def run(self, *, timeout_s: float = 60, attempt_s: float | None = None) -> int:
        return machine.run(
            str(self.path),
            self.directory,
            b"",
            Host(),
            timeout_s=timeout_s,
            attempt_s=attempt_s,
            log=self.log,
        )


def once(directory: Path, command: str) -> str:
    """What does `command` in the first start of the machine alone."""
    return f"test -e {directory}/once || {{ touch {directory}/once; {command}; }};"


def test_lab_runs_pytest_after_doctor_or_a_module_alone() -> None:
    doctor, pytest_command = command.pytest_commands(["tests/a.py", "-x"])
    assert doctor[-1] == "doctor"
    assert pytest_command[1:3] == ["-m", "pytest"]
    assert pytest_command[-2:] == ["tests/a.py", "-x"]
    assert command.module_commands("tests.a", ["--only", "b"]) == [
        [sys.executable, "-m", "tests.a", "--only", "b"]
    ]


def test_status_that_the_machine_left_is_the_status(tmp_path: Path) -> None:
    assert Emulator(tmp_path, "echo yes >$r/started; echo 5 >$r/status").run() == 5


def test_output_that_looks_like_a_status_is_none(tmp_path: Path) -> None:
    emulator = Emulator(tmp_path, "echo yes >$r/started; echo 0; echo status 0")
    emulator.log.write_text("reboot: Power down\n")
    with pytest.raises(LabFailure, match=r"ended without a status(.|\n)*Power down"):
        emulator.run()


PANIC = "Kernel panic - not syncing: Fatal exception"


def test_machine_that_panics_during_the_work_does_all_of_it_once_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator = Emulator(tmp_path, f"echo yes >$r/started; {once(tmp_path, 'exit 0')} echo 1 >$r/status")
    emulator.log.write_text(f"{PANIC}\n")
    assert emulator.run() == 1
    said = capsys.readouterr().err
    assert said.startswith("lab: the machine starts anew: the machine ended without a status (QEMU's is 0)")
    assert PANIC in said


ATTEMPT_S = patience(1)
HANGS = "exec sleep 1000"


def test_machine_whose_work_takes_longer_than_an_attempt_does_all_of_it_once_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator = Emulator(tmp_path, f"echo yes >$r/started; {once(tmp_path, HANGS)} echo 5 >$r/status")
    emulator.log.write_text("what it said before it hung\n")
    assert emulator.run(attempt_s=ATTEMPT_S) == 5
    assert capsys.readouterr().err.startswith("lab: the machine starts anew: no end within ")
    assert emulator.log.with_suffix(".before.log").read_text() == "what it said before it hung\n"


def test_machine_whose_work_hangs_again_is_a_timeout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator = Emulator(tmp_path, f"echo yes >$r/started; echo run >>{tmp_path}/runs; {HANGS}")
    emulator.log.touch()
    with pytest.raises(LabTimeout, match="no end within"):
        emulator.run(timeout_s=3 * ATTEMPT_S, attempt_s=ATTEMPT_S)
    assert (tmp_path / "runs").read_text() == "run\n" * 2
    assert capsys.readouterr().err.count("starts anew") == 1


def test_status_of_a_machine_that_does_not_switch_itself_off_counts(tmp_path: Path) -> None:
    emulator = Emulator(tmp_path, f"echo yes >$r/started; echo 5 >$r/status; {HANGS}")
    assert emulator.run(attempt_s=ATTEMPT_S) == 5


def test_machine_that_does_not_start_in_time_is_a_timeout(tmp_path: Path) -> None:
    with pytest.raises(LabTimeout, match="did not start in time"):
        Emulator(tmp_path, HANGS).run(timeout_s=ATTEMPT_S)


def test_machine_that_panics_again_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says_so = f"echo '{PANIC}' >{tmp_path}/console.log"
    emulator = Emulator(tmp_path, f"echo yes >$r/started; echo run >>{tmp_path}/runs; {says_so}")
    with pytest.raises(LabFailure, match=PANIC):
        emulator.run()
    assert (tmp_path / "runs").read_text() == "run\n" * (machine.NEW_STARTS + 1)
    assert PANIC in capsys.readouterr().err


def test_status_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(LabFailure, match="without a status"):
        Emulator(tmp_path, "echo yes >$r/started; echo >$r/status").run()


def test_work_without_end_is_a_timeout(tmp_path: Path) -> None:
    started = tmp_path / "started"
    started.touch()
    with pytest.raises(LabTimeout, match="no end within 1 s"):
        machine.watch(["sleep", "1000"], started, timeout_s=1, log=tmp_path / "log")


def test_machine_that_panics_before_it_has_started_is_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = f"{once(tmp_path, 'exit 0')} echo yes >$r/started; echo 3 >$r/status"
    assert Emulator(tmp_path, body).run() == 3
    assert capsys.readouterr().err == "lab: attempt 1: the machine did not start\n"


def test_machine_that_does_not_start_is_started_again_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "BOOT_S", 0.01)
    with pytest.raises(LabFailure, match="does not start"):
        Emulator(tmp_path, "exec sleep 1000").run()
    assert len(capsys.readouterr().err.splitlines()) == machine.BOOT_ATTEMPTS


# --- What is chosen, and what cannot be had --------------------------------------------------------------


@pytest.mark.parametrize("chosen", [selection.QUICK, selection.LONG, selection.EACH_VARIATION])
def test_selection_names_tests_that_exist(chosen: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", *chosen],
        cwd=command.TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    left_out = re.search(r"(\d+) deselected", done.stdout)
    assert int(left_out[1] if left_out else 0) == chosen.count("--deselect")


@pytest.mark.parametrize(("arguments", "status"), [([], command.UNAVAILABLE), (["--if-available"], 0)])
def test_lab_without_emulator_and_apt_says_so_in_a_line(
    arguments: list[str],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.main(arguments) == status
    assert capsys.readouterr().err == (
        "lab: skipped: qemu-system-x86_64 not found, and it cannot be installed: "
        "apt-get install qemu-system-x86\n"
    )


def test_package_that_was_unpacked_before_needs_no_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "cache" / packages.KERNEL_PACKAGE).mkdir(parents=True)
    assert packages.kernel(tmp_path / "cache") == tmp_path / "cache" / packages.KERNEL_PACKAGE
    with pytest.raises(packages.Unavailable, match="apt-cache not found"):
        packages.kernel(tmp_path / "cache", "linux-image-of-another-name")


def fake_tools(directory: Path, **bodies: str) -> str:
    """A PATH on which these tools are shell scripts; nothing else but the shell's own commands can be run."""
    for name, body in bodies.items():
        path = directory / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n")
        path.chmod(0o755)
    return str(directory)


APT_CACHE = "printf 'linux-image-amd64\\n  Depends: linux-image-6.1-amd64\\n'"


def test_kernel_of_a_meta_package_is_the_one_that_it_stands_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    apt_get = 'for word; do :; done; touch "$word.deb"'
    dpkg_deb = 'mkdir -p "$3/boot"; touch "$3/boot/$(basename $2)"'
    path = fake_tools(tmp_path / "bin", apt_cache=APT_CACHE, apt_get=apt_get, dpkg_deb=dpkg_deb)
    monkeypatch.setenv("PATH", path)

    tree = packages.kernel(tmp_path / "cache")

    assert [file.name for file in (tree / "boot").iterdir()] == ["linux-image-6.1-amd64.deb"]
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["linux-image-amd64"]


def test_package_that_cannot_be_downloaded_or_unpacked_is_unavailable_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    fake_tools(tmp_path / "bin", apt_cache=APT_CACHE, apt_get="exit 100", dpkg_deb="exit 2")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(packages.Unavailable, match="apt-get download busybox-static fails"):
        packages.busybox(tmp_path / "cache")

    fake_tools(tmp_path / "bin", apt_get='for word; do :; done; touch "$word.deb"')
    with pytest.raises(packages.Unavailable, match=r"busybox-static\.deb cannot be unpacked"):
        packages.busybox(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_variations_each_change_the_machine_and_can_be_combined() -> None:
    assert [name for name in VARIATIONS if apply([name]) == Host()] == []
    both = apply(["one-cpu", "user"])
    assert (both.cpus, both.user) == (1, 1000)
