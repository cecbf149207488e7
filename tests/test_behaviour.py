"""The comparison of what two checkouts do: what varies is left out, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools import behaviour

FACTS: dict[str, Any] = {"status": 0, "reason": "the guest shut down", "boots": 1, "wall_time": 4_100}


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        ({"wall_time": 99}, True),
        ({"wall_time": None}, False),
        ({"status": 6}, False),
        ({"reason": "the guest crashed"}, False),
        ({"more": 1}, False),
    ],
)
def test_data_of_a_run_is_the_same_but_for_numbers_that_vary(other: dict[str, Any], equal: bool) -> None:
    assert (behaviour.steady(FACTS | other) == behaviour.steady(FACTS)) is equal


def test_list_is_told_by_what_its_items_are_like() -> None:
    ports = [{"port": 1016, "direction": "out"}, {"port": 1021, "direction": "in"}]
    assert behaviour.shape(ports) == behaviour.shape([*ports, {"port": 5, "direction": "in"}])
    assert behaviour.shape(ports) != behaviour.shape(ports[:1])


def test_requests_of_a_recording_are_told_by_device_without_times() -> None:
    write = {"type": "uart", "device": "COM1", "request": "write", "value": 72, "time": 5}
    advance = {"type": "pit", "device": "PIT", "request": "advance", "time": 6}
    told = [behaviour.described("\n".join(map(json.dumps, dump))) for dump in ([write], [advance, write])]
    assert told[0] == told[1] == {"uart COM1": [json.dumps({key: write[key] for key in list(write)[:4]})]}
    assert behaviour.described(json.dumps(write | {"value": 73})) != told[0]


def test_comparison_tells_what_differs_and_gives_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, status in (("before", 0), ("same", 0), ("other", 6)):
        case = {"status": status, "stdout": "text\n", "json": {"status": status}}
        (tmp_path / name).write_text(json.dumps({"run: plain": case}))
    before, same, other = (str(tmp_path / name) for name in ("before", "same", "other"))
    assert behaviour.main(["compare", before, same]) == 0
    assert behaviour.main(["compare", before, other]) == 1
    told = capsys.readouterr().out
    assert "--- run: plain, before" in told
    assert "-status: 0\n+status: 6" in told
