"""The table of the hottest functions."""

from __future__ import annotations

from kvmbox.parts.profile.hottest import Function, functions, table
from kvmbox.parts.profile.named_stacks import Frame, Profile

MAIN, SPIN, FACT = Frame("main"), Frame("spin"), Frame("fact")


def test_functions_count_themselves_and_what_they_call() -> None:
    profile = Profile({"CPU 0": {(MAIN,): 1, (MAIN, SPIN): 5}, "CPU 1": {(SPIN,): 4, (): 9}})
    assert functions(profile) == [Function("spin", 9, 9), Function("main", 1, 6)]


def test_recursive_function_counts_once_per_sample() -> None:
    assert functions(Profile({"": {(FACT, FACT, FACT): 2}})) == [Function("fact", 2, 2)]


def test_table_shows_the_first_and_says_how_many_more() -> None:
    profile = Profile({"CPU 0": {(MAIN,): 1, (MAIN, SPIN): 2}, "CPU 1": {(FACT,): 1}})
    assert table(profile, 2).split("\n") == [
        "4 samples of 2 CPUs",
        "      self              total          function",
        "         2  50.0 %          2  50.0 %  spin",
        "         1  25.0 %          3  75.0 %  main",
        "and 1 more functions",
    ]


def test_table_of_nothing_is_one_line() -> None:
    assert table(Profile({}), 5) == "0 samples"


def test_table_shows_seconds_of_other_tools_and_names_without_control_characters() -> None:
    profile = Profile({"": {(Frame("a\x1b[2J\nb" + "x" * 500),): 0.25}}, "seconds")
    lines = table(profile, 5).split("\n")
    assert lines[0] == "0.25 seconds"
    assert len(lines) == 3
    assert lines[2].startswith("      0.25 100.0 %       0.25 100.0 %  a\\x1b[2J\\x0abxxx")
    assert len(lines[2]) < 200
