"""The command: what it refuses, lists, loads and compares, and how it ends; measurements are made up."""

from __future__ import annotations

import io
import json
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kvmbox.base.errors import KvmError
from kvmbox.cli.main import run_command
from kvmbox.tools.bench import host_facts
from kvmbox.tools.bench.measurements import Jobs
from kvmbox.tools.bench.measuring_plan import Configuration, Job, Row
from kvmbox.tools.bench.runner import StepResult

COST = {"floor": 8_000.0, "none": 10_000.0, "process/filter/shm": 11_000.0, "qemu": 10_000.0}
SMALL = ("--only", "post", "--only", "inb_from_device", "--only", "process/filter/shm", "--repeat", "3")


@pytest.fixture
def fake_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host with a bench guest, and measurements that take no time."""

    def measure(_jobs: Jobs, _job: Job, configuration: Configuration, rows: Sequence[Row]) -> StepResult:
        return StepResult({row.name: COST[configuration.name] for row in rows})

    monkeypatch.setattr(Jobs, "measure", measure)
    monkeypatch.setattr(
        host_facts, "facts", lambda **_: {"kernel": "Linux 6.1", "cpus": 2, "tsc_khz": 1_000_000}
    )
    monkeypatch.setattr("kvmbox.boot.bundled.find", lambda _: str(tmp_path / "bench.elf"))


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[0]


MEASURING = [
    *(["--quick"], ["--repeat", "3"], ["--peer", "qemu"], ["--pin", "0"], ["--timeout", "60"]),
    *(["--json", "new.json"], ["--divide", "2"], ["--cpus", "2"]),
]
"""Options that mean something only where something is measured; --timeout as it is by default, too."""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "no_such"], "names neither a row nor a configuration"),
        (["--repeat", "0"], "--repeat"),
        (["--peer", "bochs"], "'bochs'"),
        (["--pin", "99999"], "may not run on CPU 99999"),
        (["--timeout", "-1"], "not a positive number of seconds"),
        (["--plot", "picture.gif"], "ends neither in .svg nor in .png"),
        (["--page", "page.md"], "--page compares with QEMU"),
        (["--page", "/no/such/page", "--peer", "qemu"], "--page: cannot read '/no/such/page'"),
        (["--page", "/dev/null", "--peer", "qemu"], "--page: cannot read '/dev/null'"),
        (["--cpus", "0"], "--cpus"),
        (["--compare", "one"], "--compare"),
        (["surplus"], "surplus"),
        *(
            (["--load", "/no/such/file", *vain], f"--load measures no guest: {vain[0]} would")
            for vain in MEASURING
        ),
        (["--load", "/no/such/file", "--list"], "--load measures no guest: --list would"),
        (["--load", "a", "--compare", "a", "b"], "--compare measures no guest: --load would"),
        *(
            (["--compare", "a", "b", *vain], f"--compare measures no guest: {vain[0]} would")
            for vain in (*MEASURING, ["--only", "post"], ["--plot", "a.svg"], ["--page", "a.md"], ["--list"])
        ),
        *(
            (["--list", *vain], f"--list measures no guest: {vain[0]} would")
            for vain in (
                ["--repeat", "3"],
                ["--pin", "0"],
                ["--timeout", "9"],
                ["--json", "a"],
                ["--plot", "a.svg"],
                ["--page", "a.md"],
                ["--cpus", "2"],
            )
        ),
        (["--load", "a", "--repeat", "3", "--pin", "0"], "--repeat, --pin would mean nothing beside it"),
    ],
)
@pytest.mark.usefixtures("fake_host")
def test_wrong_option_gives_2_and_names_the_fault(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["bench", *arguments]) == 2
    assert words in error_of(capsys)


@pytest.mark.parametrize("arguments", [["--compare", "/no/such", "new"], ["--load", "/no/such"]])
def test_file_that_is_missing_gives_4(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["bench", *arguments]) == 4
    assert "cannot read '/no/such'" in error_of(capsys)


def test_tables_in_a_pipe_have_each_figure_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert run_command(["bench", "--load", str(Path(__file__).parents[4] / "docs/performance.json")]) == 0
    out = capsys.readouterr().out
    assert "hlt_latency_p99 " in out
    assert "…" not in out
    assert not any(line.endswith(" ") for line in out.splitlines())


@pytest.mark.usefixtures("fake_host")
def test_measured_results_are_shown_with_their_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["bench", *SMALL]) == 0
    captured = capsys.readouterr()
    assert "post: OUT to the POST port" in captured.out
    assert "11.0 µs" in captured.out
    assert answer_in(captured.out) == [
        "read",
        "of",
        "the",
        "line",
        "status",
        "register",
        "10.0",
        "µs",
        "1.10",
    ]
    assert captured.err == ""


def answer_in(out: str) -> list[str]:
    """The words of the last table's last line."""
    return [line.split() for line in out.splitlines() if line.strip()][-1]


@pytest.mark.usefixtures("fake_host")
def test_rows_have_a_table_of_their_own_only_if_something_was_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Jobs, "measure", lambda *given: StepResult({row.name: 1e4 for row in given[3]}))
    assert run_command(["bench", "--quick"]) == 0
    quick = capsys.readouterr().out
    assert "inb_from_device: " not in quick
    assert answer_in(quick)[:3] == ["hlt", "→", "handler"]
    assert run_command(["bench", "--quick", "--only", "inb_from_device"]) == 0
    assert "inb_from_device: " in capsys.readouterr().out


@pytest.mark.usefixtures("fake_host")
def test_pure_python_is_measured_only_where_the_hot_path_is_compiled(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for compiled in (True, False):
        monkeypatch.setattr("kvmbox.cli.bench.command.is_compiled", lambda compiled=compiled: compiled)
        assert run_command(["bench", "--list"]) == 0
        assert ("pure/none" in capsys.readouterr().out) is compiled


def page_at(path: Path) -> str:
    path.write_text("before\n<!-- generated: bench answer -->\n<!-- end -->\nafter\n", encoding="utf-8")
    return str(path)


@pytest.mark.usefixtures("fake_host")
def test_page_is_filled_when_it_is_measured_and_again_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmbox.tools.bench.peer.find", lambda: "/usr/bin/qemu")
    path, data = tmp_path / "page.md", str(tmp_path / "new.json")
    assert run_command(["bench", *SMALL, "--peer", "qemu", "--json", data, "--page", page_at(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert "| read of the line status register | 10.0 µs | 1.00 | 1.10 |" in text
    assert run_command(["bench", "--load", data, "--page", page_at(path)]) == 0
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.usefixtures("fake_host")
def test_page_is_looked_at_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Jobs, "measure", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr("kvmbox.tools.bench.peer.find", lambda: "/usr/bin/qemu")
    page = tmp_path / "page.md"
    for text, words in ((b"nothing", "has no marker"), (b"\xff\xfe", "is not UTF-8")):
        page.write_bytes(text)
        assert run_command(["bench", *SMALL, "--peer", "qemu", "--page", str(page)]) == 2
        assert words in error_of(capsys)


@pytest.mark.usefixtures("fake_host")
def test_page_that_cannot_be_written_is_an_output_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmbox.tools.bench.peer.find", lambda: "/usr/bin/qemu")
    data, page = str(tmp_path / "new.json"), page_at(tmp_path / "page.md")
    assert run_command(["bench", *SMALL, "--peer", "qemu", "--json", data]) == 0
    capsys.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        assert run_command(["bench", "--load", data, "--page", page]) == 14
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error_of(capsys).endswith(f"cannot write --page '{page}': File too large")


@pytest.mark.usefixtures("fake_host")
def test_tables_without_rich_are_plain_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert run_command(["bench", *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:3] == ["process/filter/shm", "11.0", "µs"] for line in lines)


@pytest.mark.usefixtures("fake_host")
def test_json_is_loaded_shown_as_markdown_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "new.json")
    assert run_command(["bench", *SMALL, "--json", path]) == 0
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    assert data["samples"]["post"]["none"] == [10_000.0] * 3
    assert data["facts"]["kernel"] == "Linux 6.1"
    assert data["finished"] is True
    capsys.readouterr()
    assert run_command(["bench", "--load", path, "--markdown"]) == 0
    assert "| post | 8.00 µs | 10.0 µs | 11.0 µs (1.10) |" in capsys.readouterr().out
    assert run_command(["bench", "--load", path, "--markdown", "--only", "post"]) == 0
    assert "| process/filter/shm | 11.0 µs |" in capsys.readouterr().out
    assert run_command(["bench", "--load", path, "--only", "post"]) == 0
    out = capsys.readouterr().out
    assert "post: " in out
    assert "inb_from_device: " not in out
    assert run_command(["bench", "--compare", path, path, "--markdown"]) == 0
    assert "|:--|" in capsys.readouterr().out
    assert run_command(["bench", "--list", "--quick", "--only", "post", "--peer", "qemu", "--markdown"]) == 0
    assert "|:--|" in capsys.readouterr().out
    assert run_command(["bench", "--compare", path, path]) == 0
    assert "6 compared: 0 higher, 0 lower, 6 within the intervals" in capsys.readouterr().out


@pytest.mark.usefixtures("fake_host")
def test_tables_are_shown_though_the_json_file_finds_no_room(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["bench", *SMALL, "--json", "/dev/full"]) == 14
    captured = capsys.readouterr()
    assert "post: OUT to the POST port" in captured.out
    assert "cannot write --json '/dev/full': No space left on device" in captured.err


class ClosedPipe(io.StringIO):
    """A stdout whose reader has gone."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.mark.usefixtures("fake_host")
def test_json_is_written_though_nobody_reads_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", ClosedPipe())
    path = tmp_path / "new.json"
    assert run_command(["bench", *SMALL, "--json", str(path)]) == 14
    assert json.loads(path.read_text(encoding="utf-8"))["finished"] is True


@pytest.mark.usefixtures("fake_host")
def test_json_that_cannot_be_written_is_found_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Jobs, "measure", lambda *_: pytest.fail("measured"))
    assert run_command(["bench", *SMALL, "--json", "/no/such/directory/x"]) == 4
    assert "cannot write --json" in error_of(capsys)


def test_malformed_file_gives_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.json"
    path.write_text('{"schema": "kvmbox-bench/2", "rows": 5}')
    assert run_command(["bench", "--compare", str(path), str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[0].endswith("is not a result of kvmbox bench: rows is not a list")
    assert len(captured.err.splitlines()) == 2  # and the hint


def failing_after(count: int, how: Callable[[], StepResult]) -> Callable[..., StepResult]:
    asked: list[str] = []

    def measure(_jobs: Jobs, _job: Job, configuration: Configuration, rows: Sequence[Row]) -> StepResult:
        asked.append(configuration.name)
        if len(asked) > count:
            return how()
        return StepResult({row.name: COST[configuration.name] for row in rows})

    return measure


def interrupt() -> StepResult:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("fake_host")
def test_interruption_shows_and_keeps_what_there_is_and_gives_130(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Jobs, "measure", failing_after(4, interrupt))
    path = tmp_path / "part.json"
    assert run_command(["bench", *SMALL, "--json", str(path)]) == 130
    captured = capsys.readouterr()
    assert "(not finished)" in captured.out
    assert "post: OUT to the POST port" in captured.out
    assert "interrupted" in captured.err
    assert json.loads(path.read_text(encoding="utf-8"))["finished"] is False


@pytest.mark.usefixtures("fake_host")
def test_configuration_that_fails_is_shown_and_the_status_stays_0(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(_jobs: Jobs, _job: Job, configuration: Configuration, rows: Sequence[Row]) -> StepResult:
        if configuration.name != "none":
            return StepResult({}, "refused on this host")
        return StepResult({row.name: 5.0 for row in rows})

    monkeypatch.setattr(Jobs, "measure", measure)
    assert run_command(["bench", *SMALL]) == 0
    assert "refused on this host" in capsys.readouterr().out


@pytest.mark.usefixtures("fake_host")
def test_nothing_measured_gives_4_and_the_reasons(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Jobs, "measure", lambda *_: StepResult({}, "refused on this host"))
    assert run_command(["bench", *SMALL]) == 4
    captured = capsys.readouterr()
    assert "refused on this host" in captured.out
    assert captured.err.startswith("kvmbox: error: nothing could be measured")


@pytest.mark.usefixtures("fake_host")
def test_host_without_kvm_gives_4_and_the_usual_hint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> dict[str, str | int]:
        raise KvmError("cannot open /dev/kvm: Permission denied", hint="add your user to the kvm group")

    monkeypatch.setattr(host_facts, "facts", refuse)
    assert run_command(["bench", *SMALL]) == 4
    assert "hint: add your user to the kvm group" in capsys.readouterr().err


def test_missing_guest_gives_4_and_says_how_to_build_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmbox.boot.bundled.find", lambda _: None)
    assert run_command(["bench", *SMALL]) == 4
    assert "hint: in a source tree: make guests" in capsys.readouterr().err


def test_list_measures_nothing_and_names_everything(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_facts, "facts", lambda **_: pytest.fail("looked at the host"))
    assert run_command(["bench", "--list"]) == 0
    out = capsys.readouterr().out
    assert "hlt_latency_p99" in out
    assert "per-device/filter/pipe" in out
