"""Results of boot processes are hostile bytes."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.tools.warm.boot_result import (
    MOST_HEADER,
    MOST_OUTPUT,
    MalformedResultError,
    WarmResult,
    lost,
    pack_result,
    unpack_result,
)

RESULT = WarmResult(
    *(3, "why", None, "RIP", "R", False, b"\x00out\xff", ("a", "b"), 2, {"total": 7}, {"boots": 1}),
    screen={"rows": ["a"]},
)


def test_result_survives_the_way() -> None:
    assert unpack_result(pack_result(RESULT)) == RESULT


def test_every_part_of_a_result_is_not_yet_one() -> None:
    data = pack_result(RESULT)

    assert all(unpack_result(data[:size]) is None for size in range(len(data)))


def test_boot_process_cannot_call_its_result_lost() -> None:
    told = unpack_result(pack_result(lost("it says so")))

    assert told is not None
    assert not told.lost


def _with(**changed: Any) -> bytes:
    fields = {
        "status": 3,
        "reason": "why",
        "hint": None,
        "report": "",
        "summary": "",
        "failed": False,
        "messages": [],
        "answered": 0,
        "durations": {},
        "statistics": {},
        "screen": None,
    }
    header = json.dumps({**fields, **changed}).encode()
    return struct.pack("=II", len(header), 0) + header


def test_fields_as_they_should_be_are_a_result() -> None:
    assert unpack_result(_with()) is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"status": -1},
        {"status": 256},
        {"status": True},
        {"status": "3"},
        {"reason": None},
        {"hint": 1},
        {"failed": 1},
        {"messages": [1]},
        {"messages": "text"},
        {"answered": -1},
        {"durations": {"total": "7"}},
        {"durations": {"total": 1.5}},
        {"statistics": []},
        {"lost": True},
    ],
)
def test_wrong_field_is_malformed(changed: dict[str, Any]) -> None:
    with pytest.raises(MalformedResultError):
        unpack_result(_with(**changed))


@pytest.mark.parametrize(("header", "output"), [(MOST_HEADER + 1, 0), (0, MOST_OUTPUT + 1)])
def test_result_of_too_many_bytes_is_malformed_before_they_come(header: int, output: int) -> None:
    with pytest.raises(MalformedResultError):
        unpack_result(struct.pack("=II", header, output))


def test_bytes_behind_a_result_are_malformed() -> None:
    with pytest.raises(MalformedResultError):
        unpack_result(pack_result(RESULT) + b"x")


def test_deep_json_is_malformed() -> None:
    header = b"[" * 100_000
    with pytest.raises(MalformedResultError):
        unpack_result(struct.pack("=II", len(header), 0) + header)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_result_malformed_or_not_enough(data: bytes) -> None:
    framed = struct.pack("=II", len(data), 0) + data
    for received in (data, framed):
        try:
            unpack_result(received)
        except MalformedResultError:
            continue
