"""docs/writing-a-device.md, followed to the letter: its device is added to a copy of the package.

The copy differs from kvmbox by what the page says, and by nothing else. It runs in processes of its own; the
package of the tests is not touched.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from kvmbox.base.outcome import debug_exit_status
from kvmbox.remote.channel.journal import JOURNAL_LIMIT
from tests.support.dma import store
from tests.support.family import device_processes
from tests.support.real_mode import say, wait_input
from tests.support.runs import KVMBOX, Images, Run
from tests.support.waiting import PATIENCE_S

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/writing-a-device.md").read_text(encoding="utf-8")
ROOM: Final = "kvmbox/devices/alarm"
CATALOG: Final = "kvmbox/contract/catalog.py"
BOARD: Final = "kvmbox/devices/pc_board.py"
IMPORT: Final = "from kvmbox.devices.alarm import board as alarm\n"


def section(title: str) -> str:
    """The text of the section whose heading ends with this title."""
    (text,) = re.findall(
        rf"^## (?:\d\. )?{re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    assert isinstance(text, str)
    return text


def code(title: str, language: str) -> list[str]:
    """The blocks of code of a section, in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)


def commands(title: str) -> list[str]:
    """The commands of a section: what is indented, outside of its blocks."""
    prose = re.sub(r"^```.*?^```$", "", section(title), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^ {4}(\S.*)$", prose, re.MULTILINE)


def printed_by_the_example() -> str:
    (text,) = code("A guest", "text")
    return text


def insert(path: Path, before: str, text: str) -> None:
    """Put `text` in front of the one line that is `before`."""
    old = path.read_text(encoding="utf-8")
    assert old.count(f"\n{before}\n") == 1, (path, before)
    path.write_text(old.replace(f"\n{before}\n", f"\n{text}{before}\n"), encoding="utf-8")


def differing(one: Path, other: Path) -> set[str]:
    """The files that are in one of two trees only, or not the same in both."""
    files = {
        str(path.relative_to(top))
        for top in (one, other)
        for path in (top / "kvmbox").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    _, mismatch, errors = filecmp.cmpfiles(one, other, files, shallow=False)
    return {*mismatch, *errors}


class Workshop:
    """A directory with the guest, and a kvmbox with the device."""

    def __init__(self, directory: Path, package: Path) -> None:
        self.directory = directory
        self.environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(package)}
        shim = directory / "bin/kvmbox"
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{KVMBOX[-1]}" "$@"\n')
        shim.chmod(0o755)

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """Do what the page says."""
        path = f"{self.directory / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self.directory,
            env={**self.environment, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def python(self, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a Python program with this kvmbox."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def run(self, *options: str, image: Path | None = None) -> Run:
        """A run of the guest, or of another one, whose keys the test types."""
        return Run(
            *options,
            image or self.directory / "alarm.elf",
            stdin=subprocess.PIPE,
            env=self.environment,
            cwd=self.directory,
        )


def build_guest(workshop: Workshop) -> None:
    (source,) = code("A guest", "asm")
    (workshop.directory / "alarm.S").write_text(source)
    if not (shutil.which("cc") and shutil.which("ld")):
        pytest.skip("cc or ld not found: the guest cannot be built")
    for command in commands("A guest")[:-1]:
        built = workshop.shell(command)
        assert built.returncode == 0, built.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the device, by the steps of the page."""
    top = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT / "kvmbox", top / "kvmbox", ignore=shutil.ignore_patterns("__pycache__"))
    (model,) = code("The model", "python")
    (top / ROOM).mkdir()
    (top / ROOM / "__init__.py").touch()
    (top / ROOM / "model.py").write_text(model, encoding="utf-8")
    entry, row, on_board = code("The catalogue and the board", "python")
    (top / ROOM / "board.py").write_text(row, encoding="utf-8")
    insert(top / BOARD, "from kvmbox.devices.debug import board as debug", IMPORT)
    insert(top / CATALOG, '    "shutdown_port": "debug.model:ShutdownPort",', entry)
    insert(top / BOARD, "    return board", on_board)
    return top


@pytest.fixture
def workshop(package: Path, tmp_path: Path) -> Workshop:
    workshop = Workshop(tmp_path, package)
    build_guest(workshop)
    return workshop


def test_device_is_a_model_a_line_of_the_catalogue_and_an_entry_of_the_board(package: Path) -> None:
    assert differing(ROOT, package) == {
        *(f"{ROOM}/{one}.py" for one in ("__init__", "board", "model")),
        CATALOG,
        BOARD,
    }
    entry, _, _ = code("The catalogue and the board", "python")
    assert entry.count("\n") == 1
    for path in (CATALOG, BOARD):  # nothing is taken from them, and their lines are in the same order
        lines = iter((package / path).read_text(encoding="utf-8").splitlines())
        assert all(line in lines for line in (ROOT / path).read_text(encoding="utf-8").splitlines())


@pytest.mark.kvm
@pytest.mark.parametrize(
    "design", ["", "--sandbox per-device", "--sandbox none", "--ipc shm", "--seccomp strict"]
)
def test_guest_uses_the_device_as_the_page_says(design: str, workshop: Workshop) -> None:
    command = commands("A guest")[-1]
    done = workshop.shell(command.replace("kvmbox run", f"kvmbox run {design}"))
    assert (done.returncode, done.stdout) == (5, printed_by_the_example()), done.stderr
    assert "ends with status 5," in section("A guest")


@pytest.mark.kvm
def test_run_with_the_device_is_recorded_and_replayed(workshop: Workshop) -> None:
    record, replay, dump = (command for command in commands("What you get with it") if "alarm.rec" in command)
    assert workshop.shell(record).returncode == 5
    replayed = workshop.shell(replay)
    assert replayed.returncode == 0, replayed.stderr
    assert "replies are identical" in replayed.stdout
    dumped = workshop.shell(dump)
    assert dumped.returncode == 0, dumped.stderr
    for words in ("write 4 bytes 0x000493e0 to port 0x700", "alarm raises IRQ 10", "alarm lowers IRQ 10"):
        assert words in dumped.stdout
    traced = workshop.shell("kvmbox trace alarm.rec")
    assert traced.returncode == 0, traced.stderr
    assert "alarm" in traced.stdout


def kill_device(run: Run) -> None:
    """SIGKILL for the process of the alarm, which has its title still, for it was not replaced yet."""
    (pid,) = (pid for pid, name in device_processes(run.pid).items() if name == "alarm")
    os.kill(pid, signal.SIGKILL)


@pytest.mark.kvm
def test_guest_does_not_notice_that_the_process_of_the_device_is_killed(workshop: Workshop) -> None:
    (command,) = (command for command in commands("What you get with it") if "--on-device-crash" in command)
    options = command.removeprefix("kvmbox run ").split()[:-1]
    with workshop.run(*options) as run:
        run.send(b"1")
        run.stdout.until(b"woken by alarm 1\n")
        # The alarm is set and far away when its process dies: the deadline and the count are not lost.
        run.send(b"9")
        run.stdout.until(b"set\n")
        kill_device(run)
        run.stdout.until(b"woken by alarm 2\n")
        run.send(b"q")
        assert run.status() == 5, run.messages
        assert run.output.decode() == printed_by_the_example()
        assert "device process 'alarm' was killed by signal 9 (SIGKILL): restarted, " in run.messages


@pytest.mark.kvm
def test_snapshot_that_a_new_process_starts_from_is_not_noticed_either(
    workshop: Workshop, images: Images
) -> None:
    alarm, count = 0x700, 0x708
    # Ring once; then read COUNT so often that the journal is given up for a snapshot: JOURNAL_LIMIT.
    select = b"\xba" + count.to_bytes(2, "little")  # mov dx,COUNT
    ring = store(alarm, 1000) + select + bytes.fromhex("66ed 84c0 74fa")  # in eax,dx; test al,al; jz
    read_often = b"\xb9" + (3 * JOURNAL_LIMIT).to_bytes(2, "little") + bytes.fromhex("66ed e2fc")  # loop
    tell = select + bytes.fromhex("66ed e6f4")  # in eax,dx; out DEBUG_EXIT_PORT,al
    image = images.write(ring + read_often + say(b"here\n") + wait_input() + tell)
    with workshop.run("--on-device-crash", "restart", "--boot", "real", image=image) as run:
        run.stdout.until(b"here\n")
        kill_device(run)
        run.send(b"x")
        assert run.status() == debug_exit_status(1), run.messages
        (replayed,) = re.findall(
            r"device process 'alarm' .*: restarted, (\d+) requests replayed", run.messages
        )
        assert int(replayed) < JOURNAL_LIMIT


@pytest.mark.kvm
def test_run_ends_when_the_process_of_the_device_is_killed_and_not_restarted(workshop: Workshop) -> None:
    with workshop.run() as run:
        run.send(b"9")
        run.stdout.until(b"set\n")
        kill_device(run)
        assert run.status() == 8
        assert "device process 'alarm' was killed by signal 9 (SIGKILL)" in run.messages


def test_qtest_drives_the_device(workshop: Workshop) -> None:
    (command,) = (command for command in commands("What you get with it") if "qtest" in command)
    done = workshop.shell(command)
    assert (done.returncode, done.stdout) == (0, "OK\nOK 5000\nOK 0x0002\n"), done.stderr
    requests = "irq_intercept_in ioapic\noutl 0x700 5\nclock_step 4999\nclock_step\noutl 0x704 0\ninl 0x708\n"
    done = workshop.python("-c", KVMBOX[-1], "qtest", stdin=requests)
    assert done.stdout.splitlines() == [
        *("OK", "OK", "OK 4999", "IRQ raise 10", "OK 5000", "IRQ lower 10", "OK", "OK 0x0001"),
    ]


def test_policy_and_audit_know_the_process_of_the_device(workshop: Workshop) -> None:
    policy, audit = commands("What you get with it")[-2:]
    shown = workshop.shell(policy)
    assert shown.returncode == 0, shown.stderr
    assert "device process: alarm" in shown.stdout
    audited = workshop.shell(f"{audit} --probe read-passwd --json audit.json")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    (probe,) = json.loads((workshop.directory / "audit.json").read_text())["probes"]
    assert probe["control"]["effective"]
    assert probe["types"]["alarm"]["verdict"] == "contained"


def test_model_keeps_the_contract_of_every_model_of_the_catalogue(package: Path, workshop: Workshop) -> None:
    assert "`tests/property/test_model_fuzz.py` takes every model" in section("Tests, and a page")
    # The tests go where the copy of the package is, for pytest puts the root of the tests first.
    for name in ("kvmbox", "pyproject.toml", "tests"):
        (workshop.directory / name).symlink_to((package if name == "kvmbox" else ROOT) / name)
    # The examples are the same each time: whether this passes is no matter of luck.
    test, options = "tests/property/test_model_fuzz.py", ("-p", "no:cacheprovider", "--hypothesis-seed=0")
    done = workshop.python("-m", "pytest", "-q", *options, test, "-k", "alarm_timer")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_test_of_the_page_passes(workshop: Workshop) -> None:
    (text,) = code("Tests, and a page", "python")
    path = workshop.directory / "test_alarm_timer.py"
    path.write_text(text)
    done = workshop.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, path)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


@pytest.mark.kvm
def test_device_comes_from_outside_without_a_change_of_the_package(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, ROOT)
    build_guest(workshop)
    (model,) = code("The model", "python")
    (tmp_path / "alarm_timer.py").write_text(model, encoding="utf-8")
    (program,) = code("A device without a change of kvmbox", "python")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = workshop.python("program.py", stdin="31q")
    assert (done.returncode, done.stdout) == (5, printed_by_the_example()), done.stderr
