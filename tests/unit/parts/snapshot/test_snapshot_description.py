"""The description of a machine: encode and decode are each other's opposite, and nothing else is accepted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import SnapshotFileError
from kvmbox.host.files.sparse_memory import Run
from kvmbox.parts.snapshot.description import RUNS, decode, encode
from kvmbox.parts.snapshot.file_layout import Header, Section, decode_runs
from tests.support.machine_files import DESCRIPTION, MEMORY_SIZE, SECTIONS

END = layout.PAGE_SIZE + MEMORY_SIZE + 1000
HEADER = Header(END + 100, MEMORY_SIZE, END, 100, 0)
PLACES = {name: Section(END - 500, 10, 1) for name in (RUNS, *SECTIONS)}

_WRONG: tuple[Any, ...] = (
    *(None, True, -1, 1 << 70, 1.5, [], [1], {}, [[]]),
    *("x", "zz", "\ud800", "a\0b", "0" * 70000),
)


def text_of(data: Any) -> bytes:
    return json.dumps(data).encode()


def good() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode(DESCRIPTION, PLACES))
    return found


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside of `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


def test_decode_gives_what_was_encoded() -> None:
    assert decode(encode(DESCRIPTION, PLACES), HEADER) == (DESCRIPTION, PLACES)


@pytest.mark.parametrize("path", list(places(good())), ids=lambda path: ".".join(map(str, path)))
def test_value_of_another_kind_is_refused_or_means_what_it_says(path: tuple[Any, ...]) -> None:
    for wrong in _WRONG:
        data = good()
        at(data, path[:-1])[path[-1]] = wrong
        try:
            description, sections = decode(text_of(data), HEADER)
        except SnapshotFileError:
            continue
        again = json.loads(encode(description, sections))
        assert again == data


@pytest.mark.parametrize("change", ["missing", "further"])
def test_other_set_of_fields_is_refused(change: str) -> None:
    for path in [(), *places(good())]:
        if not isinstance(at(good(), path), dict):
            continue
        data = good()
        target = at(data, path)
        if change == "further":
            target["further"] = 1
        else:
            del target[next(iter(target))]
        with pytest.raises(SnapshotFileError):
            decode(text_of(data), HEADER)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"a":NaN}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"host":1,"host":1}',
    ],
)
def test_what_is_no_description_is_refused(text: bytes) -> None:
    with pytest.raises(SnapshotFileError, match="it is damaged"):
        decode(text, HEADER)


def _without(name: str) -> Callable[[dict[str, Section]], dict[str, Section]]:
    return lambda sections: {key: value for key, value in sections.items() if key != name}


@pytest.mark.parametrize(
    "change",
    [
        _without(RUNS),
        _without("cpu 0"),
        _without("device COM1"),
        _without("file 1"),
        lambda sections: {**sections, "cpu 1": Section(END - 500, 1, 0)},
        lambda sections: {**sections, "cpu 0": Section(END - 5, 10, 0)},
        lambda sections: {**sections, "cpu 0": Section(0, 10, 0)},
        lambda sections: {**sections, "cpu 0": Section(1 << 63, 10, 0)},
        lambda sections: {**sections, "cpu 0": Section(END - 500, 1 << 40, 0)},
    ],
)
def test_sections_that_cannot_be_are_refused(
    change: Callable[[dict[str, Section]], dict[str, Section]],
) -> None:
    with pytest.raises(SnapshotFileError, match="section"):
        decode(encode(DESCRIPTION, change(dict(PLACES))), HEADER)


def test_sections_that_are_together_too_long_are_refused() -> None:
    huge = Header(1 << 40, MEMORY_SIZE, (1 << 40) - 100, 100, 0)
    sections = {name: Section(1 << 30, 1 << 28, 0) for name in PLACES}
    with pytest.raises(SnapshotFileError, match="too long"):
        decode(encode(DESCRIPTION, sections), huge)


@pytest.mark.parametrize(
    "runs", [b"x", b"\0" * 12, Run(300, 1, 0), Run(0, 257, 0), (Run(2, 2, 0), Run(3, 1, 0)), (Run(1, 0, 0),)]
)
def test_runs_that_cannot_be_are_refused(runs: Any) -> None:
    from kvmbox.parts.snapshot.file_layout import RUN

    if not isinstance(runs, bytes):
        listed = runs if isinstance(runs, tuple) else (runs,)
        runs = b"".join(RUN.pack(run.first, run.count, run.checksum) for run in listed)
    with pytest.raises(SnapshotFileError, match="memory blocks"):
        decode_runs(runs, MEMORY_SIZE)
