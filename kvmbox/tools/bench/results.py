"""What was measured, and its JSON file: written at the end, read back for --load and --compare.

The file has every sample, so that a reader can compute another statistic than the median. It is read like any
input: its shape is checked first, and what is wrong is said in one line (UsageError, status 2).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar, get_args

from kvmbox.base.errors import StartError, UsageError
from kvmbox.base.regular_file import open_regular_file
from kvmbox.tools.bench.measuring_plan import NONE, Configuration, Job, Plan, Row, Unit, match, start_row

SCHEMA: Final = "kvmbox-bench/2"
DIGITS: Final = 5
"""Significant digits of a sample: more than any measurement is worth, and a smaller file."""
MAX_FILE: Final = 1 << 26
MAX_NAMES: Final = 4096
MAX_TEXT: Final = 4096
MAX_ROUNDS: Final = 100_000

Samples: TypeAlias = list[float | None]


@dataclass(slots=True)
class Results:
    """Samples by row and configuration, one per round, None where a round gave none.

    `failures` has, by configuration and job, why a measurement gave nothing or not all. `facts` are those of
    the host (`host_facts`); `finished` says whether all rounds were done.
    """

    rows: list[Row]
    configurations: list[Configuration]
    facts: dict[str, str | int]
    samples: dict[str, dict[str, Samples]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    rounds: int = 0
    finished: bool = False

    @classmethod
    def of(cls, plan: Plan, facts: Mapping[str, str | int]) -> Results:
        """Nothing measured yet."""
        return cls(list(plan.rows), list(plan.configurations), dict(facts))

    def record(self, round_: int, configuration: str, row: str, value: float) -> None:
        """One sample. A row that is not known is a stage of the start: how many there are, a run decides."""
        if all(known.name != row for known in self.rows):
            last = max(i for i, known in enumerate(self.rows) if known.job == "start")
            self.rows.insert(last + 1, start_row(row))
        series = self.samples.setdefault(row, {}).setdefault(configuration, [])
        series += [None] * (round_ + 1 - len(series))
        series[round_] = _rounded(value)

    def fail(self, configuration: str, job: Job, reason: str) -> None:
        """A measurement gave nothing, or not all; the first reason is kept."""
        self.failures.setdefault(configuration, {}).setdefault(job, reason)

    def series(self, row: str, configuration: str) -> Samples:
        """All samples of a cell, perhaps none."""
        return self.samples.get(row, {}).get(configuration, [])

    def values(self, row: str, configuration: str) -> list[float]:
        """The samples that there are, in the order of time."""
        return [value for value in self.series(row, configuration) if value is not None]

    @property
    def empty(self) -> bool:
        """Whether nothing at all could be measured."""
        return not any(self.values(row, name) for row, cells in self.samples.items() for name in cells)

    def narrowed(self, only: Sequence[str]) -> Results:
        """The same with the rows and configurations that patterns name; all of either if they name none.

        UsageError if one names nothing. `none` stays: it is what the others are compared with.
        """
        rows, names = match(only, self.rows, self.configurations)
        return Results(
            [row for row in self.rows if not rows or row.name in rows],
            [one for one in self.configurations if not names or one.name in names | {NONE}],
            self.facts,
            self.samples,
            self.failures,
            self.rounds,
            self.finished,
        )

    def as_json(self) -> str:
        """The file's text: a line for each row, configuration and cell, so that two files can be compared."""
        data = {"schema": SCHEMA} | asdict(self)
        for key, items in (("rows", self.rows), ("configurations", self.configurations)):
            data[key] = [_stated(item) for item in items]
        return _lines(data, depth=2) + "\n"


def _rounded(value: float) -> float:
    """`value` to so many digits as are kept, as an int where it is whole: "287" is shorter than "287.0"."""
    number = float(f"{value:.{DIGITS}g}")
    return int(number) if number.is_integer() else number


def _stated(item: Row | Configuration) -> dict[str, object]:
    """The fields that are not what they are by default."""
    return {one.name: value for one in fields(item) if (value := getattr(item, one.name)) != one.default}


def _lines(value: object, depth: int) -> str:
    """JSON whose lists and objects are broken into lines down to `depth`, and no further."""
    if depth == 0 or not value or not isinstance(value, dict | list):
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_lines(item, depth - 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + "\n}"
    return "[\n" + ",\n".join(_lines(item, depth - 1) for item in value) + "\n]"


# --- Reading -----------------------------------------------------------------------------------------------

_T = TypeVar("_T")
_Item = TypeVar("_Item", Row, Configuration)


class _Wrong(Exception):
    """What is wrong with a file, and where."""


def _is(kind: type[_T], value: object, where: str) -> _T:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _Wrong(f"{where} is not {_WORDS[kind]}")
    return value


_WORDS: Final = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    bool: "true or false",
}


def _text(value: object, where: str) -> str:
    text = _is(str, value, where)
    if len(text) > MAX_TEXT or not all(character.isprintable() for character in text):
        raise _Wrong(f"{where} is no text of up to {MAX_TEXT} printable characters")
    return text


def _one_of(choices: Sequence[str], value: object, where: str) -> Any:
    text = _text(value, where)
    if text not in choices:
        raise _Wrong(f"{where} is none of {', '.join(choices)}")
    return text


def _count(limit: int, value: object, where: str) -> int:
    number = _is(int, value, where)
    if not 0 <= number <= limit:
        raise _Wrong(f"{where} is not between 0 and {limit}")
    return number


_READERS: Final[dict[str, Callable[[object, str], Any]]] = {
    "unit": partial(_one_of, get_args(Unit)),
    "job": partial(_one_of, get_args(Job)),
    "kind": partial(_one_of, ("kvmbox", "floor", "qemu")),
    "count": partial(_count, 1 << 32),
    "pure": partial(_is, bool),
}
"""What reads a field of a row or of a configuration; the others are texts."""


def _item(kind: type[_Item], data: object, where: str) -> _Item:
    """A row or a configuration. Where a field may be missing, it is what its class says."""
    entry = _is(dict, data, where)
    values: dict[str, Any] = {}
    for one in fields(kind):
        value = values[one.name] = entry.get(one.name, None if one.default is MISSING else one.default)
        if value is not None or one.default is not None:
            values[one.name] = _READERS.get(one.name, _text)(value, f"{where}.{one.name}")
    return kind(**values)


def _sample(value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong(f"{where} is not a number")
    # An int may be too large to be a float.
    number = float(value) if abs(value) < 1e300 else math.inf
    if not 0 <= number < 1e300:
        raise _Wrong(f"{where} is not a number from 0 on")
    return _rounded(number)


def _named(data: object, where: str, names: set[str]) -> dict[str, Any]:
    entry = _is(dict, data, where)
    for name in entry:
        if name not in names:
            raise _Wrong(f"{where} has a key that is not declared: {name[:40]!r}")
    return entry


def _check(data: object) -> Results:
    entry = _is(dict, data, "the file")
    if entry.get("schema") != SCHEMA:
        raise _Wrong(f"its schema is not '{SCHEMA}'")
    lists = {key: _is(list, entry.get(key), key) for key in ("rows", "configurations")}
    if any(len(items) > MAX_NAMES for items in lists.values()):
        raise _Wrong(f"it has more than {MAX_NAMES} rows or configurations")
    rows = [_item(Row, item, f"rows[{i}]") for i, item in enumerate(lists["rows"])]
    configurations = [
        _item(Configuration, item, f"configurations[{i}]") for i, item in enumerate(lists["configurations"])
    ]
    row_names, names = {row.name for row in rows}, {one.name for one in configurations}
    if len(row_names) != len(rows) or len(names) != len(configurations):
        raise _Wrong("two rows or two configurations have the same name")
    facts: dict[str, str | int] = {}
    for key, value in _is(dict, entry.get("facts"), "facts").items():
        facts[_text(key, "facts")] = (
            _count(1 << 63, value, f"facts.{key}") if isinstance(value, int) else _text(value, f"facts.{key}")
        )
    results = Results(rows, configurations, facts)
    results.rounds = _count(MAX_ROUNDS, entry.get("rounds"), "rounds")
    results.finished = _is(bool, entry.get("finished"), "finished")
    for row, cells in _named(entry.get("samples"), "samples", row_names).items():
        for name, series in _named(cells, f"samples.{row}", names).items():
            where = f"samples.{row}.{name}"
            items = _is(list, series, where)
            if len(items) > MAX_ROUNDS:
                raise _Wrong(f"{where} is longer than {MAX_ROUNDS}")
            results.samples.setdefault(row, {})[name] = [_sample(item, where) for item in items]
    for name, jobs in _named(entry.get("failures"), "failures", names).items():
        for job, reason in _named(jobs, f"failures.{name}", set(get_args(Job))).items():
            results.failures.setdefault(name, {})[job] = _text(reason, f"failures.{name}.{job}")
    return results


def _no_constant(name: str) -> float:
    raise _Wrong(f"{name} is not JSON")


def load(path: str) -> Results:
    """The results in the file `path`. StartError if it cannot be read, UsageError if it is not one."""
    try:
        with os.fdopen(open_regular_file(path), "rb") as file:
            text = file.read(MAX_FILE + 1)
    except OSError as error:
        raise StartError(f"cannot read '{path}': {error.strerror}") from error
    try:
        if len(text) > MAX_FILE:
            raise _Wrong(f"it is larger than {MAX_FILE} bytes")
        return _check(json.loads(text.decode("utf-8"), parse_constant=_no_constant))
    except _Wrong as error:
        reason = str(error)
    except RecursionError:
        reason = "it is nested too deeply"
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}: {error.msg}"
    except ValueError as error:
        # An integer of more digits than Python converts.
        reason = str(error).partition(";")[0]
    raise UsageError(
        f"'{path}' is not a result of kvmbox bench: {reason}", hint="'kvmbox bench --json FILE' writes one"
    )
