"""The picture: drawn headless out of synthetic results."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from kvmbox.base.errors import HostOutputError, StartError, UsageError
from kvmbox.tools.bench import plot
from kvmbox.tools.bench.measuring_plan import NONE, QEMU, choose
from kvmbox.tools.bench.results import Results

SHM = "process/filter/shm"


@pytest.fixture
def results() -> Results:
    found = Results.of(choose(peer=True), {"kernel": "Linux 6.1"})
    for round_ in range(3):
        found.record(round_, NONE, "debugcon", 10.0)
        found.record(round_, SHM, "debugcon", 12.0 + round_ * 4)
        found.record(round_, QEMU, "debugcon", 40.0)
        found.record(round_, "process/strict/shm", "debugcon", 12.0)
        found.record(round_, NONE, "post", 2.0)
        found.record(round_, SHM, "post", 2.0)
        found.record(round_, NONE, "rtc_read", 2.0)
    return found


@pytest.mark.parametrize(("name", "magic"), [("plot.svg", b"<?xml"), ("plot.PNG", b"\x89PNG")])
def test_picture_is_drawn_in_the_format_of_its_name(
    results: Results, tmp_path: Path, name: str, magic: bytes
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / name
    plot.draw(results, str(path))
    assert path.read_bytes().startswith(magic)


def test_picture_names_accesses_and_ipcs_and_qemu(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.svg"
    plot.draw(results, str(path))
    text = path.read_text(encoding="utf-8")
    for shown in ("debug console, per byte", "shm", "QEMU, not isolated", "1.60", "4.00"):
        assert f">{shown}</text>" in text
    assert ">pipe</text>" not in text


def test_picture_has_the_answers_rows_and_configurations_that_have_a_ratio(results: Results) -> None:
    found = plot.drawn(results)
    assert {row: list(columns) for row, columns in found.items()} == {"debugcon": ["shm", QEMU]}
    assert (found["debugcon"]["shm"].median, found["debugcon"][QEMU].median) == (1.6, 4.0)


def test_picture_of_narrowed_results_has_only_what_was_named(results: Results) -> None:
    results.record(0, NONE, "thr_only", 10.0)
    results.record(0, QEMU, "thr_only", 10.0)
    assert list(plot.drawn(results)) == ["thr_only", "debugcon"]
    assert list(plot.drawn(results.narrowed(["debugcon"]))) == ["debugcon"]
    assert list(plot.drawn(results.narrowed(["debugcon", SHM]))["debugcon"]) == ["shm"]


def test_nothing_to_draw_is_a_usage_error(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(UsageError, match="no ratio to draw"):
        plot.draw(Results.of(choose(), {}), str(tmp_path / "plot.svg"))


def test_picture_that_cannot_be_written_is_an_output_error(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(HostOutputError, match="cannot write --plot"):
        plot.draw(results, str(tmp_path / "missing" / "plot.svg"))


def test_name_without_a_format_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(UsageError, match="ends neither in"):
        plot.check("plot.jpeg")


def test_missing_matplotlib_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError("No module named 'matplotlib'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(StartError, match="needs matplotlib") as caught:
        plot.check("plot.svg")
    assert caught.value.hint is not None
    assert "kvmbox[plot]" in caught.value.hint
