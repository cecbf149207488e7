"""Strict reading of JSON: exact field sets, exact types, bounded sizes. Pure.

Each accessor takes a field and checks it; `end` refuses what nobody has taken. Whatever the text, the only
error is SnapshotFileError.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from kvmbox.errors import SnapshotFileError
from kvmbox.parts.snapshot.layout import damaged

MAX_TEXT: Final = 4096
MAX_64: Final = (1 << 64) - 1

_Item = TypeVar("_Item")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of ours")


def _is_text(value: object, most: int) -> bool:
    """Whether it is a text that can be the name of a file, or what a guest is told."""
    if type(value) is not str or len(value) > most or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field twice")
    return found


def parse(text: bytes) -> Fields:
    """The fields of an object in JSON. Raises SnapshotFileError."""
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise damaged("the description is not what kvmbox writes") from error
    return Fields(value, "the description")


class Fields:
    """An object of JSON that is taken apart field by field."""

    def __init__(self, value: object, what: str) -> None:
        """`what` names the object for a person. Raises SnapshotFileError if it is none."""
        if not isinstance(value, dict):
            raise damaged(f"{what} is no object")
        self._left: dict[str, Any] = dict(value)
        self._what = what

    def _refuse(self, name: str) -> SnapshotFileError:
        return damaged(f"field '{name}' of {self._what}")

    def _take(self, name: str) -> Any:
        if name not in self._left:
            raise self._refuse(name)
        return self._left.pop(name)

    def integer(self, name: str, low: int = 0, high: int = MAX_64) -> int:
        """A whole number from `low` to `high`."""
        value = self._take(name)
        if type(value) is not int or not low <= value <= high:
            raise self._refuse(name)
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._take(name)
        if type(value) is not bool:
            raise self._refuse(name)
        return value

    def text(self, name: str, most: int = MAX_TEXT) -> str:
        """A text of at most `most` characters, without NUL."""
        value = self._take(name)
        if not _is_text(value, most):
            raise self._refuse(name)
        return str(value)

    def data(self, name: str, most: int = MAX_TEXT) -> bytes:
        """Bytes, at most `most`, as pairs of hexadecimal digits."""
        value = self._take(name)
        if type(value) is not str or len(value) > 2 * most:
            raise self._refuse(name)
        try:
            return bytes.fromhex(value)
        except ValueError as error:
            raise self._refuse(name) from error

    def optional(self, name: str, read: Callable[[str], _Item]) -> _Item | None:
        """What `read`, an accessor, gives for the field; None for null."""
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return None
        return read(name)

    def objects(self, name: str, most: int) -> list[Fields]:
        """A list of at most `most` objects."""
        value = self._take(name)
        if type(value) is not list or len(value) > most:
            raise self._refuse(name)
        return [Fields(item, f"an item of '{name}'") for item in value]

    def object(self, name: str) -> Fields:
        """An object."""
        return Fields(self._take(name), f"'{name}'")

    def numbers(self, name: str, count: int, high: int = MAX_64) -> tuple[int, ...]:
        """A list of exactly `count` whole numbers up to `high`."""
        value = self._take(name)
        if type(value) is not list or len(value) != count:
            raise self._refuse(name)
        if any(type(item) is not int or not 0 <= item <= high for item in value):
            raise self._refuse(name)
        return tuple(value)

    def rows(self, name: str, most: int, count: int, high: int = MAX_64) -> list[tuple[int, ...]]:
        """A list of at most `most` lists of exactly `count` whole numbers up to `high`."""
        value = self._take(name)
        if type(value) is not list or len(value) > most:
            raise self._refuse(name)
        for row in value:
            if type(row) is not list or len(row) != count:
                raise self._refuse(name)
            if any(type(item) is not int or not 0 <= item <= high for item in row):
                raise self._refuse(name)
        return [tuple(row) for row in value]

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """A list of at most `most` texts."""
        value = self._take(name)
        if type(value) is not list or len(value) > most:
            raise self._refuse(name)
        if not all(_is_text(item, MAX_TEXT) for item in value):
            raise self._refuse(name)
        return tuple(value)

    def end(self) -> None:
        """There are no more fields."""
        if self._left:
            raise self._refuse(min(self._left))
