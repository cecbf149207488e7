"""Reads the command line of `kvmbox run` without click, whose import takes a fifth of a short run.

What is odd in any way is left to click, which reads the line again: only click reports mistakes, shows help,
and completes words. What both read is the same, and a test compares.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.cli.config import option_defaults
from kvmbox.cli.run.execute import Line
from kvmbox.run.options.definition import FLAG, REPEATED, Option
from kvmbox.run.options.option_table import OPTIONS

STARTERS: Final = {"from_file", "disks", "cdroms"}
"""Options of which one is enough: there need be no guest beside it."""
COMPLETION_VARIABLE: Final = "_KVMBOX_COMPLETE"
"""How the scripts of `kvmbox completion` ask click for words."""


def read(words: Sequence[str]) -> Line | None:
    """What the `words` behind `kvmbox run` ask for, or None: click is to read them."""
    try:
        line = _line(words)
        # What a configuration file sets is checked by click's types.
        return None if COMPLETION_VARIABLE in os.environ or option_defaults.find().tables else line
    except (ValueError, UsageError):
        return None


def _line(words: Sequence[str]) -> Line:
    """ValueError for whatever is odd."""
    spelled = {option.spelling: option for option in OPTIONS.values()}
    found: dict[str, Any] = {}
    guests: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            guests += rest
        elif not word.startswith("-"):
            guests.append(word)
        else:
            spelling, equals, text = word.partition("=")
            if spelling not in spelled:
                raise ValueError(word)
            option = spelled[spelling]
            _add(found, option, _text(option, text if equals else None, rest))
    if len(guests) > 1 or "" in guests or not (guests or STARTERS & found.keys()):
        raise ValueError(guests)
    if "help" in found.get("inject", ()):
        raise ValueError("help")
    return Line(guests[0] if guests else None, found, frozenset(found))


def _text(option: Option, behind_equals: str | None, rest: Iterator[str]) -> str:
    if option.kind == FLAG:
        if behind_equals is not None:
            raise ValueError(behind_equals)
        return ""
    if behind_equals is not None:
        return behind_equals
    text = next(rest, "-")
    if text.startswith("-"):  # an option, where a value is missing, or a value that looks like one
        raise ValueError(text)
    return text


def _add(found: dict[str, Any], option: Option, text: str) -> None:
    if option.kind == REPEATED:
        found[option.name] = (*found.get(option.name, ()), text)
    elif option.kind == FLAG:
        found[option.name] = True
    elif option.name in found:
        raise ValueError(text)
    else:
        found[option.name] = _value(option, text)


def _value(option: Option, text: str) -> Any:
    if option.read is not None:
        return option.read(text)
    if option.choices and text not in option.choices:
        raise ValueError(text)
    if option.bounds is None:
        return text
    least, most = option.bounds
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(text)
    number = int(text)
    if number < least or (most is not None and number > most):
        raise ValueError(text)
    return number
