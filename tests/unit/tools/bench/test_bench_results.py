"""The JSON file: what is written is read back; what is hostile is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvmbox.base.errors import StartError, UsageError
from kvmbox.tools.bench.measuring_plan import choose
from kvmbox.tools.bench.results import MAX_FILE, Results, load


def made_up() -> Results:
    results = Results.of(
        choose(only=["post", "pss", "process/filter/shm"]), {"kernel": "Linux 1", "tsc_khz": 5}
    )
    for round_ in range(3):
        for name, value in (("none", 10.0), ("process/filter/shm", 12.5)):
            results.record(round_, name, "post", value + round_)
    results.record(2, "none", "pss", 1e7)
    results.fail("floor", "accesses", "refused")
    results.rounds, results.finished = 3, True
    return results


def written(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "results.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def changed(tmp_path: Path, *keys: str | int, value: Any) -> str:
    data = json.loads(made_up().as_json())
    place = data
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return written(tmp_path, json.dumps(data))


def test_results_survive_their_file(tmp_path: Path) -> None:
    results = made_up()
    read = load(written(tmp_path, results.as_json()))
    assert read == results
    assert read.series("pss", "none") == [None, None, 1e7]


def test_file_keeps_five_digits_and_no_field_that_says_nothing() -> None:
    results = made_up()
    results.record(0, "none", "post", 10_123.456)
    results.record(1, "none", "post", 28_312_345.6)
    data = json.loads(results.as_json())
    assert data["samples"]["post"]["none"] == [10_123, 28_312_000, 12]
    assert results.series("post", "none") == [10_123, 28_312_000, 12]
    assert data["configurations"][1] == {"name": "none", "sandbox": "none"}
    assert {"name": "pure/none", "sandbox": "none", "pure": True} in [
        *json.loads(Results.of(choose(), {}).as_json())["configurations"]
    ]


def test_file_of_another_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a result of kvmbox bench: its schema is not"):
        load(written(tmp_path, "{}"))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot read '.*none\.json': No such file"):
        load(str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1: Expecting value"),
        ("[", "line 1"),
        ("[]", "the file is not an object"),
        ("null", "the file is not an object"),
        (b"\xff\xfe", "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("NaN", "NaN is not JSON"),
        ('{"schema": -Infinity}', "-Infinity is not JSON"),
        ("1" * 5000, "Exceeds the limit"),
        (b" " * (MAX_FILE + 1), "larger than"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_text_that_is_no_json_is_refused_in_one_line(tmp_path: Path, text: str | bytes, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        load(written(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (("schema",), "kvmbox-bench/1", "schema"),
        (("schema",), 1, "schema"),
        (("rows",), {}, "rows is not a list"),
        (("rows", 0), 5, r"rows\[0\] is not an object"),
        (("rows", 0, "name"), 5, r"rows\[0\].name is not a text"),
        (("rows", 0, "name"), "a\x1b[2J", "printable"),
        (("rows", 0, "title"), "x" * 5000, "printable"),
        (("rows", 0, "unit"), "furlongs", "none of ns"),
        (("rows", 0, "job"), "none", "none of accesses"),
        (("rows", 0, "count"), -1, "not between"),
        (("rows", 0, "reference"), ["post"], "not a text"),
        (("rows",), [{}] * 5000, "more than"),
        (("configurations", 0, "kind"), "vmware", "none of kvmbox"),
        (("configurations", 0, "pure"), 1, "pure is not true or false"),
        (("configurations", 0, "name"), "none", "same name"),
        (("facts",), [], "facts is not an object"),
        (("facts", "kernel"), 1.5, "facts.kernel is not a text"),
        (("facts", "tsc_khz"), -1, "not between"),
        (("facts", "tsc_khz"), True, "facts.tsc_khz is not a whole number"),
        (("rounds",), True, "rounds is not a whole number"),
        (("rounds",), 10**9, "rounds is not between"),
        (("finished",), 1, "finished is not true or false"),
        (("samples",), [], "samples is not an object"),
        (("samples", "unknown"), {}, "not declared: 'unknown'"),
        (("samples", "post", "unknown"), [], "not declared: 'unknown'"),
        (("samples", "post", "none"), 5, "samples.post.none is not a list"),
        (("samples", "post", "none", 0), "5", "not a number"),
        (("samples", "post", "none", 0), True, "not a number"),
        (("samples", "post", "none", 0), -1, "from 0 on"),
        (("samples", "post", "none", 0), 10**400, "from 0 on"),
        (("samples", "post", "none", 0), [], "not a number"),
        (("failures", "floor", "accesses"), 5, "not a text"),
        (("failures", "floor", "dancing"), "x", "not declared"),
        (("failures", "nobody"), {}, "not declared"),
    ],
)
def test_shape_that_is_wrong_is_refused_and_named(
    tmp_path: Path, keys: tuple[str | int, ...], value: Any, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        load(changed(tmp_path, *keys, value=value))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    "key", ["schema", "rows", "configurations", "facts", "samples", "failures", "rounds"]
)
def test_missing_part_is_refused(tmp_path: Path, key: str) -> None:
    data = json.loads(made_up().as_json())
    del data[key]
    with pytest.raises(UsageError):
        load(written(tmp_path, json.dumps(data)))


def test_number_that_overflows_in_the_text_is_refused(tmp_path: Path) -> None:
    text = made_up().as_json().replace("12.5", "1e999")
    with pytest.raises(UsageError, match="from 0 on"):
        load(written(tmp_path, text))


def test_narrowed_results_have_what_patterns_name_and_none() -> None:
    results = made_up()
    narrowed = results.narrowed(["process/*"])
    assert [one.name for one in narrowed.configurations] == ["none", "process/filter/shm"]
    assert narrowed.rows == results.rows
    assert [row.name for row in results.narrowed(["ps*"]).rows] == ["pss"]
    assert results.narrowed([]) == results
    with pytest.raises(UsageError, match="--only 'qemu'"):
        results.narrowed(["qemu"])


def test_empty_means_that_no_cell_has_a_sample() -> None:
    assert Results.of(choose(), {}).empty
    assert not made_up().empty


def test_first_reason_of_a_failure_is_kept() -> None:
    results = made_up()
    results.fail("floor", "accesses", "another")
    assert results.failures["floor"]["accesses"] == "refused"
