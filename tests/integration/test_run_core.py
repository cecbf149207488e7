"""Core files of guests, read by the real gdb and by pyelftools."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from kvmbox import Machine
from kvmbox.boot import bundled
from tests.support.crash_kernels import build_32, build_64, build_higher_half, need_compiler, run
from tests.support.family import children_of, pidfds_of
from tests.support.patience import far_enough, seconds
from tests.support.real_mode import SPIN, TRIPLE_FAULT, say
from tests.support.runs import KVMBOX, Images
from tests.support.waiting import wait_readable

NEEDS_GDB = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb not found")


def gdb(*commands: str, image: Path | str, core: Path) -> str:
    """What gdb says to the commands, on both streams."""
    words = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run(
        ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", *words, image, core],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert "warning" not in done.stdout.lower()
    return done.stdout


def leftovers(directory: Path) -> list[str]:
    return [one.name for one in directory.iterdir() if one.name.endswith(".partial")]


@NEEDS_GDB
@pytest.mark.kvm
def test_gdb_reads_a_crash_of_64_bits(tmp_path: Path) -> None:
    need_compiler()
    image, core = build_64(tmp_path, 10), tmp_path / "guest.core"
    status, report = run(image, "--core", core, "--json", tmp_path / "facts.json")
    assert status == 6
    assert f"core file '{core}' written" in report
    assert json.loads((tmp_path / "facts.json").read_text())["core"] == str(core)
    told = gdb("bt", "info registers", "p/x table[1]", "x/i $pc", image=image, core=core)
    assert "signal SIGSEGV" in told
    assert "in dereference (pointer=0x0) at " in told
    assert [line.split(" in ")[1].split()[0] for line in told.splitlines() if line.startswith("#1")] == [
        "cause"
    ]
    assert "#2 " in told
    assert "_start ()" in told
    assert "rip            0x1002" in told
    assert "= 0x1007" in told  # memory
    assert "movl   $0x2a,(%rax)" in told
    assert leftovers(tmp_path) == []


@NEEDS_GDB
@pytest.mark.kvm
def test_gdb_reads_a_crash_of_32_bits(tmp_path: Path) -> None:
    need_compiler()
    image, core = build_32(tmp_path, 2), tmp_path / "guest.core"
    assert run(image, "--core", core)[0] == 6
    told = gdb("bt", "info registers", "x/i $pc", image=image, core=core)
    assert "#0  cause () at " in told
    assert "in _start () at " in told
    assert "eip            0x1000" in told
    assert "mov    %eax,%ss" in told


@NEEDS_GDB
@pytest.mark.kvm
def test_gdb_reads_a_kernel_in_the_higher_half(tmp_path: Path) -> None:
    need_compiler()
    image, core = build_higher_half(tmp_path), tmp_path / "guest.core"
    assert run(image, "--core", core)[0] == 6
    commands = (
        "bt",
        "x/s (char *)&message",
        "p/x $rbx",
        "x/gx 0xffffff7fbfdfe000+510*8",
        "x/wx 0x4000000000100000",
    )
    told = gdb(*commands, image=image, core=core)
    assert "signal SIGILL" in told
    assert "#0  panic () at " in told
    assert "main () at " in told
    assert '"out of memory"' in told
    assert "= 0x1122334455667788" in told
    assert "0xffffff7fbfdfeff0:\t0x0000000000101003" in told  # the page tables, by themselves
    assert "0x4000000000100000" in told.splitlines()[-1]  # physical memory
    assert "annot access" not in told


@NEEDS_GDB
@pytest.mark.kvm
def test_gdb_sees_each_cpu_as_a_thread(tmp_path: Path) -> None:
    image, core = str(bundled.find("smp")), tmp_path / "guest.core"
    status, report = run(Path("smp"), "--cpus", "2", "--core", core, "--core-always")
    assert (status, report.splitlines()[-1].startswith(f"kvmbox: core file '{core}' written: ")) == (0, True)
    told = gdb("info threads", "thread 2", "p $pc", image=image, core=core)
    assert "LWP 1" in told
    assert "LWP 2" in told
    assert "[Switching to thread 2" in told


@pytest.mark.kvm
def test_time_out_leaves_a_sparse_file_with_all_of_memory(tmp_path: Path) -> None:
    core = tmp_path / "guest.core"
    options = ("--memory", "64M", "--core", core, "--timeout")
    status, _ = far_enough(lambda scale: run(Path("spin"), *options, seconds(scale)), lambda _: core.exists())
    assert status == 124
    with core.open("rb") as stream:
        file = ELFFile(stream)
        loads = [one for one in file.iter_segments() if one["p_type"] == "PT_LOAD"]
        assert (file["e_type"], file["e_machine"]) == ("ET_CORE", "EM_386")
        assert [(one["p_vaddr"], one["p_paddr"], one["p_filesz"]) for one in loads] == [(0, 0, 64 << 20)]
        stream.seek(loads[0]["p_offset"] + 0x10_0000)
        assert any(stream.read(4096))  # the guest's code
    found = core.stat()
    assert found.st_size >= 64 << 20
    assert found.st_blocks * 512 < 4 << 20


@pytest.mark.kvm
@pytest.mark.parametrize("sandbox", ["process", "none"])
def test_end_that_is_none_of_these_leaves_no_core_file(sandbox: str, tmp_path: Path) -> None:
    core = tmp_path / "guest.core"
    core.write_text("of yesterday")
    options = ("--sandbox", sandbox, "--core", core, "--json", tmp_path / "facts.json")
    assert run(Path("hello32"), *options)[0] == 0
    assert core.read_text() == "of yesterday"
    assert json.loads((tmp_path / "facts.json").read_text())["core"] is None
    assert leftovers(tmp_path) == []


@pytest.mark.kvm
def test_reboot_leaves_the_core_file_of_the_last_boot(tmp_path: Path) -> None:
    core = tmp_path / "guest.core"
    status, report = run(Path("reboot"), "--core", core, "--core-always")
    assert status % 2 or status == 0
    assert report.count("core file") == 1
    assert core.exists()


@pytest.mark.kvm
def test_lost_device_process_leaves_a_core_file(images: Images, tmp_path: Path) -> None:
    core = tmp_path / "guest.core"
    poll_lsr = bytes.fromhex("bafd03 ec ebfd")
    with images.run(say(b"ready\n") + poll_lsr, "--core", core) as running:
        running.stdout.until(b"ready\n")
        os.kill(running.family.devices["uart"], signal.SIGKILL)
        assert running.status() == 8
        assert f"core file '{core}' written" in running.messages
    with core.open("rb") as stream:
        assert ELFFile(stream)["e_type"] == "ET_CORE"


@pytest.mark.kvm
def test_killed_vmm_leaves_nothing(images: Images, tmp_path: Path) -> None:
    core = tmp_path / "cores" / "guest.core"
    core.parent.mkdir()
    with images.run(say(b"ready\n") + SPIN, "--core", core) as running:
        running.stdout.until(b"ready\n")
        pidfds = pidfds_of(children_of(running.pid))
        running.signal(signal.SIGKILL)
        running.exit_status()
        for pidfd in pidfds:
            wait_readable(pidfd, "the end of a process of the run")
            os.close(pidfd)
    assert os.listdir(core.parent) == []


@pytest.mark.kvm
def test_snapshot_and_core_file_of_one_run(images: Images, tmp_path: Path) -> None:
    core, snap = tmp_path / "guest.core", tmp_path / "guest.snap"
    words = ("--core", core, "--snapshot-when", f"ready={snap}")
    with images.run(say(b"ready\n") + TRIPLE_FAULT, *words) as running:
        assert running.status() == 6
    assert core.exists()
    assert snap.exists()
    again = tmp_path / "again.core"
    assert run(Path("--from"), snap, "--core", again)[0] == 6
    assert again.stat().st_size == core.stat().st_size


@pytest.mark.kvm
@pytest.mark.parametrize(
    ("guest", "options", "status"), [("triplefault", (), 6), ("hello32", ("--core-always",), 14)]
)
def test_full_disk_is_one_line_and_leaves_nothing(
    guest: str, options: tuple[str, ...], status: int, tmp_path: Path
) -> None:
    core = tmp_path / "guest.core"
    command = shlex.join([*KVMBOX, "run", guest, "--core", str(core), *options])
    done = subprocess.run(
        ["sh", "-c", f"ulimit -f 64; exec {command}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert done.stderr.count(f"cannot write --core '{core}': File too large") == 1
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (("--core-always",), 2, "--core-always needs --core"),
        (("--core", "no/such/folder"), 4, "cannot write --core 'no/such/folder': No such file or directory"),
        (("--core", "/"), 4, "cannot write --core '/': there is something that is no file"),
        (("--core", "a", "--json", "a"), 2, "is also"),
    ],
)
def test_wrong_core_is_one_line(options: tuple[str, ...], status: int, words: str) -> None:
    found, report = run(Path("hello32"), *options)
    assert found == status
    assert words in report.splitlines()[0]
    assert "Traceback" not in report


@pytest.mark.kvm
def test_program_gets_the_path_of_its_core_file(tmp_path: Path) -> None:
    core = tmp_path / "guest.core"
    with Machine("triplefault", core=core) as vm:
        result = vm.wait(30)
    assert (result.status, result.core) == (6, str(core))
    assert core.exists()
    assert leftovers(tmp_path) == []
