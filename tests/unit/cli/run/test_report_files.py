"""The files of `kvmbox run --json` and `--html`: both are written, and agree with how the command ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from kvmbox.base.errors import HostOutputError, StartError
from kvmbox.cli.run.report_files import RunReports
from kvmbox.run.result.run_result import Ending

FULL = "/dev/full"


class Result(Ending):
    """As much of a run's result as the reports need."""

    def as_json(self, wall_time: int) -> dict[str, Any]:
        return self.encoded() | {"wall_time": wall_time}


def write(reports: RunReports, status: int) -> HostOutputError | None:
    reports.open()
    try:
        reports.write(cast(Any, Result(status, "it ended", None, "", "")), 5)
    except HostOutputError as error:
        return error
    return None


def data_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("status", [0, 43])
def test_page_that_is_lost_makes_a_failure_of_a_success_and_data_say_so(tmp_path: Path, status: int) -> None:
    path = tmp_path / "out.json"
    lost = write(RunReports({"--json": str(path), "--html": FULL}, ()), status)
    assert str(lost) == f"cannot write --html '{FULL}': No space left on device"
    assert (data_of(path)["status"], data_of(path)["reason"]) == (14, str(lost))


def test_page_is_written_where_the_data_are_lost(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    lost = write(RunReports({"--json": FULL, "--html": str(path)}, ()), 0)
    assert str(lost) == f"cannot write --json '{FULL}': No space left on device"
    assert "it ended" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("status", [6, 12, 130])
def test_another_end_stays_and_what_is_lost_is_one_more_line(
    capsys: pytest.CaptureFixture[str], status: int
) -> None:
    assert write(RunReports({"--json": FULL, "--html": FULL}, ()), status) is None
    lines = [
        f"kvmbox: cannot write {option} '{FULL}': No space left on device" for option in ("--html", "--json")
    ]
    assert capsys.readouterr().err.splitlines() == lines


def test_data_tell_that_the_page_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    reports = RunReports({"--json": str(path), "--html": str(tmp_path)}, ())
    with pytest.raises(StartError, match="Is a directory") as caught:
        reports.open()
    reports.fail(caught.value, 5)
    assert (data_of(path)["status"], data_of(path)["reason"]) == (4, str(caught.value))


def test_run_that_is_interrupted_before_its_start_leaves_both(tmp_path: Path) -> None:
    path, page = tmp_path / "out.json", tmp_path / "out.html"
    reports = RunReports({"--json": str(path), "--html": str(page)}, ())
    reports.open()
    reports.fail(KeyboardInterrupt(), 5)
    assert data_of(path)["status"] == 130
    assert "interrupted before the start" in page.read_text(encoding="utf-8")
