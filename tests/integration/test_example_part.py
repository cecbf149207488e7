"""A part is one folder and one row: one is added to a copy of kvmbox, and each other one is taken away."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from kvmbox.run.parts import ORDER
from tests.support.patience import LATE, far_enough, seconds

pytestmark = pytest.mark.kvm

PROJECT: Final = Path(__file__).parents[2]
HELLO: Final = b"Hello from 32-bit protected mode!\n"

EXAMPLE: Final = '''
"""--example-count: how often the guest begins anew."""

from __future__ import annotations

from kvmbox.base.outcome import Outcome
from kvmbox.run.machine.one_boot import Boot
from kvmbox.run.part import Part, Standing
from kvmbox.run.result.run_result import Draft
from kvmbox.run.loop.vcpu_pause import Visitor


class Example(Part, Visitor):
    def __init__(self, example_count: str) -> None:
        self.word = example_count
        self.boots = 0

    def attach(self, machine: Standing) -> None:
        machine.loop.standstill.admit(self)

    def boot_begins(self, boot: Boot) -> None:
        self.boots += 1

    def report(self, draft: Draft) -> None:
        draft.facts["example"] = self.boots
        draft.appendix.append(f"{self.word}: {self.boots}")


PART = Example
'''

ROW: Final = """\
        Option("example_count", "Count the boots of the guest, under the name WORD.", metavar="WORD",
               part="example"),
"""

ABOVE: Final = '        Option("source", '
"""The row before which the new one comes."""

OPTIONS_OF: Final[dict[str, tuple[str, ...]]] = {
    "core_file": ("--core", "core"),
    "crash_report": ("--source", "."),
    "disk": ("--cdrom", "disk.iso"),
    "exit_samples": ("--stats",),
    "gdb": ("--gdb", "unix:gdb.sock,nowait"),
    "inject": ("--inject", "uart:drop-irq=0.1"),
    "pci_bus": ("--pci", "on"),
    "net": ("--net", "loop"),
    "profile": ("--profile", "profile.folded"),
    "record": ("--record", "recording"),
    "restart": ("--on-device-crash", "restart"),
    "screen": ("--screen", "end"),
    "snapshot": ("--snapshot-when", "Hello=snapshot"),
    "transcript": ("--html", "page.html"),
    "virtio": ("--rng",),
    "vnc": ("--vnc", "unix:vnc.sock"),
}
"""An option of each part."""


class Copy:
    """A copy of kvmbox in a directory, where it is run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.package = directory / "kvmbox"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / "kvmbox", self.package, ignore=ignored)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=120,
        )

    def kvmbox(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return self.python("-m", "kvmbox", *arguments)

    def run(self, *arguments: str) -> tuple[int, bytes, Sequence[str]]:
        """Status, stdout, and the lines of stderr."""
        done = self.kvmbox("run", *arguments)
        return done.returncode, done.stdout, done.stderr.decode().splitlines()


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.fixture(scope="module")
def with_example(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy with the example: a folder, a row, and what is generated from the table."""
    copy = Copy(tmp_path_factory.mktemp("example"))
    folder = copy.package / "parts" / "example"
    folder.mkdir()
    (folder / "part.py").write_text(EXAMPLE)
    table = copy.package / "run/options/option_table.py"
    text = table.read_text(encoding="utf-8")
    assert text.count(ABOVE) == 1
    table.write_text(text.replace(ABOVE, ROW + ABOVE), encoding="utf-8")
    for one in ("tools/generate_options.py", "docs/command-line.md"):
        (copy.directory / one).parent.mkdir()
        shutil.copy(PROJECT / one, copy.directory / one)
    done = copy.python("-c", "import runpy; runpy.run_path('tools/generate_options.py', run_name='__main__')")
    assert (done.returncode, done.stderr) == (0, b"")
    return copy


# --- One more --------------------------------------------------------------------------------------------


def test_new_part_is_run_by_its_option_and_adds_its_line_to_the_report(with_example: Copy) -> None:
    status, output, lines = with_example.run("triplefault", "--example-count", "boots so far")
    assert status == 6
    assert lines[-1] == "boots so far: 1"
    status, plain, lines = with_example.run("triplefault")
    assert (status, plain) == (6, output)
    assert not any("boots so far" in line for line in lines)


def test_new_part_sees_the_boots_of_a_guest_that_resets_itself(with_example: Copy) -> None:
    code = (
        "import json\nfrom kvmbox import Machine\n"
        "with Machine('reboot', example_count='boots') as vm:\n    result = vm.wait(60)\n"
        "print(json.dumps([result.status, result.facts['example'], result.statistics.boots, "
        "result.crash_report]))"
    )
    done = with_example.python("-c", code)
    assert done.stderr == b""
    status, counted, boots, report = json.loads(done.stdout)
    assert (status, report) == (0, f"boots: {counted}")
    assert counted == boots > 1


def test_new_option_is_in_the_help_and_wherever_else_options_are(with_example: Copy) -> None:
    words = b" ".join(with_example.kvmbox("run", "--help").stdout.split())
    assert b"--example-count WORD Count the boots of the guest, under the name WORD." in words
    page = (with_example.directory / "docs/command-line.md").read_text(encoding="utf-8")
    assert "`--example-count WORD`" in page
    types = (with_example.package / "run/options/_generated.py").read_text(encoding="utf-8")
    assert "    example_count: str | None\n" in types
    done = with_example.python(
        "-c", "import inspect, kvmbox; print('example_count' in inspect.signature(kvmbox.Machine).parameters)"
    )
    assert done.stdout == b"True\n"
    status, _, lines = with_example.run("hello32", "--example-count")
    assert status == 2
    assert "--example-count" in lines[0]


# --- One less --------------------------------------------------------------------------------------------


def test_each_part_has_an_option_here() -> None:
    assert sorted(OPTIONS_OF) == sorted(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_kvmbox_without_a_part_runs_and_its_option_says_what_is_missing(copy: Copy, name: str) -> None:
    shutil.rmtree(copy.package / "parts" / name)
    assert copy.run("hello32") == (0, HELLO, [])
    assert copy.kvmbox("run", "--help").returncode == 0
    status, output, (line, hint) = copy.run("hello32", *OPTIONS_OF[name])
    assert (status, output) == (4, b"")
    assert line.startswith(f"kvmbox: error: this kvmbox has no part '{name}': ")
    assert hint.startswith(f"hint: the folder kvmbox/parts/{name} ")


def test_kvmbox_without_any_part_tells_how_guests_end(copy: Copy) -> None:
    for name in ORDER:
        shutil.rmtree(copy.package / "parts" / name)
    assert copy.run("hello32") == (0, HELLO, [])
    ends = {("haltforever",): 6, ("spin", "--timeout"): 124, ("screen", "--append", "21"): 43}
    for arguments, status in ends.items():

        def ended(scale: int, words: tuple[str, ...] = arguments) -> tuple[int, bytes, Sequence[str]]:
            return copy.run(*words, *([seconds(scale)] if words[-1] == "--timeout" else []))

        found, _, lines = far_enough(ended, lambda end: not any(LATE in line for line in end[2]))
        assert found == status
        (line,) = [line for line in lines if "has no part" in line]
        wanted = "screen" if status == 43 else "crash_report"
        assert line.startswith(f"kvmbox: this kvmbox has no part '{wanted}': ")
        assert (status == 43) != any(line.startswith("kvmbox: error: ") for line in lines)


def test_snapshot_is_no_start_without_the_part(copy: Copy) -> None:
    shutil.rmtree(copy.package / "parts" / "snapshot")
    (copy.directory / "snapshot").touch()
    status, _, (line, hint) = copy.run("--from", "snapshot")
    assert status == 4
    assert line.startswith("kvmbox: error: this kvmbox has no part 'snapshot': ")
    assert hint.startswith("hint: ")


def test_kvmbox_without_its_compiled_halves_is_pure(copy: Copy) -> None:
    shutil.rmtree(copy.package / "fast")
    status, output, lines = copy.run("hello32", "--stats")
    assert (status, output) == (0, HELLO)
    assert any("pure Python (it was not built for this Python)" in line for line in lines)
