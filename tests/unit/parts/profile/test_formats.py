"""What is written can be read, and what cannot be read is refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base.errors import StartError
from kvmbox.parts.profile.formats import SCHEMA, collapsed, is_speedscope, read, speedscope
from kvmbox.parts.profile.named_stacks import Frame, Profile, Stack

MAIN, SPIN = Frame("main", "src/main.c"), Frame("spin")
ONE = Profile({"CPU 0": {(MAIN, SPIN): 3, (MAIN,): 1}})
TWO = Profile({"CPU 0": {(MAIN,): 1}, "CPU 1": {(SPIN,): 2}})


def stacks(profile: Profile) -> dict[str, int | float]:
    (found,) = profile.threads.values()
    return {";".join(frame.name for frame in stack): count for stack, count in found.items()}


def test_collapsed_line_is_the_stack_and_its_count() -> None:
    assert collapsed(ONE) == "main;spin 3\nmain 1\n"


def test_collapsed_stacks_of_several_cpus_begin_with_the_cpu() -> None:
    assert collapsed(TWO) == "CPU 0;main 1\nCPU 1;spin 2\n"


def test_collapsed_names_cannot_break_a_line_or_a_stack() -> None:
    hostile: Stack = (Frame("a;b\nc 7\r\x1b[2J\u202e"), Frame("\u2028"))
    text = collapsed(Profile({"CPU 0": {hostile: 1}}))
    assert text == "a\\x3bb\\x0ac 7\\x0d\\x1b[2J\\x202e;\\x2028 1\n"


def test_empty_profile_is_written_and_read() -> None:
    nothing = Profile({})
    assert collapsed(nothing) == ""
    assert read(b"", "f").total == 0
    assert read(speedscope(nothing, "x", "y").encode(), "f").total == 0


def test_speedscope_file_is_as_the_schema_says() -> None:
    found = json.loads(speedscope(TWO, "kernel.elf", "kvmbox 1"))
    assert found == {
        "$schema": SCHEMA,
        "name": "kernel.elf",
        "exporter": "kvmbox 1",
        "activeProfileIndex": 0,
        "shared": {"frames": [{"name": "main", "file": "src/main.c"}, {"name": "spin"}]},
        "profiles": [
            {"type": "sampled", "name": name, "unit": "none", "startValue": 0, "endValue": count,
             "samples": [[frame]], "weights": [count]}
            for name, count, frame in (("CPU 0", 1, 0), ("CPU 1", 2, 1))
        ],
    }  # fmt: skip


@pytest.mark.parametrize("profile", [ONE, TWO])
def test_speedscope_file_is_read_as_it_was_written(profile: Profile) -> None:
    assert read(speedscope(profile, "x", "y").encode(), "f") == profile


@given(
    st.dictionaries(
        st.lists(st.text(min_size=1), min_size=1).map(tuple), st.integers(1, 10**9), min_size=1, max_size=5
    )
)
def test_collapsed_stacks_of_any_names_keep_lines_depth_and_counts(found: dict[tuple[str, ...], int]) -> None:
    profile = Profile({"": {tuple(map(Frame, stack)): count for stack, count in found.items()}})
    lines = collapsed(profile).splitlines()
    assert [line.rpartition(" ")[0].count(";") + 1 for line in lines] == [len(stack) for stack in found]
    assert [int(line.rpartition(" ")[2]) for line in lines] == list(found.values())
    read(collapsed(profile).encode(), "f")


def test_collapsed_lines_of_other_tools_are_read() -> None:
    assert stacks(read(b"# comment\r\nmain;a b 2\r\n\r\nmain;a b 1\n", "f")) == {"main;a b": 3}


def test_collapsed_stack_that_begins_with_a_brace_is_no_json() -> None:
    assert stacks(read(b"{closure#0};main 3\n", "f")) == {"{closure#0};main": 3}


def test_name_decides_the_format() -> None:
    assert is_speedscope("a.json")
    assert not is_speedscope("a.folded")
    assert not is_speedscope("json")


def good() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(speedscope(ONE, "x", "y"))
    return found


def damaged(**changes: object) -> bytes:
    found = good()
    found["profiles"][0] |= changes
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"main", "line 1 does not end"),
        (b"main 1\nmain x\n", "line 2 does not end"),
        (b"main -1", "line 1 does not end"),
        ("main \u0663".encode(), "line 1 does not end"),
        (b"main " + b"9" * 5000, "line 1 does not end"),
        (b"\x7fELF\0\0", "line 1 does not end"),
        (b"{", "not valid JSON"),
        (b'{"a":' + b"[" * 100_000, "not valid JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"{}", "no shared.frames"),
        (b'{"shared": {"frames": [1]}, "profiles": []}', "frame 0 has no name"),
        (b'{"shared": {"frames": []}, "profiles": [1]}', "profile 0 is not of the type"),
        (damaged(type="evented"), "profile 0 is not of the type"),
        (damaged(unit="parsecs"), "unknown unit"),
        (damaged(unit=["none"]), "unknown unit"),
        (damaged(weights=[1]), "as many samples as weights"),
        (damaged(samples=[[0], 1]), "not a list"),
        (damaged(samples=[[0], [2]]), "does not exist"),
        (damaged(samples=[[0], [-1]]), "does not exist"),
        (damaged(samples=[[0], [True]]), "does not exist"),
        (damaged(weights=[1, -1]), "not a number"),
        (damaged(weights=[1, float("nan")]), "not a number"),
        (damaged(weights=[1, float("inf")]), "not a number"),
        (damaged(weights=[1, True]), "not a number"),
    ],
)
def test_damaged_file_is_refused_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises(StartError, match=words) as error:
        read(data, "my.json")
    assert "'my.json'" in str(error.value)
    assert error.value.hint is not None


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for content in (data, b"{" + data):
        try:
            read(content, "f")
        except StartError:
            continue


def test_profiles_of_different_units_are_refused() -> None:
    found = good()
    found["profiles"].append(found["profiles"][0] | {"unit": "seconds"})
    with pytest.raises(StartError, match="different units"):
        read(json.dumps(found).encode(), "f")
