"""Strict reading of JSON: exact field sets, exact types, bounded sizes. Pure.

Each accessor takes a field and checks it; `all` refuses what nobody has taken. Whatever the text, the only
error is SnapshotFileError.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from kvmbox.base.errors import SnapshotFileError
from kvmbox.base.value_classes import Value
from kvmbox.parts.snapshot.file_layout import damaged

MAX_TEXT: Final = 4096
MAX_64: Final = (1 << 64) - 1

_Item = TypeVar("_Item")
_Value = TypeVar("_Value", bound=Value)


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


def _is_row(value: object, count: int, high: int) -> bool:
    """Whether it is a list of so many whole numbers up to `high`."""
    return (
        type(value) is list
        and len(value) == count
        and all(type(item) is int and 0 <= item <= high for item in value)
    )


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

    def _take(self, name: str, is_right: Callable[[Any], bool]) -> Any:
        if name not in self._left or not is_right(self._left[name]):
            raise self._refuse(name)
        return self._left.pop(name)

    def _list(self, name: str, most: int, is_right: Callable[[Any], bool]) -> list[Any]:
        """A list of at most `most` items that are right."""
        found: list[Any] = self._take(
            name, lambda value: type(value) is list and len(value) <= most and all(map(is_right, value))
        )
        return found

    def integer(self, name: str, low: int = 0, high: int = MAX_64) -> int:
        """A whole number from `low` to `high`."""
        return int(self._take(name, lambda value: type(value) is int and low <= value <= high))

    def flag(self, name: str) -> bool:
        """True or false."""
        return bool(self._take(name, lambda value: type(value) is bool))

    def text(self, name: str, most: int = MAX_TEXT) -> str:
        """A text of at most `most` characters, without NUL."""
        return str(self._take(name, lambda value: _is_text(value, most)))

    def data(self, name: str, most: int = MAX_TEXT) -> bytes:
        """Bytes, at most `most`, as pairs of hexadecimal digits."""
        digits = self._take(name, lambda value: type(value) is str and len(value) <= 2 * most)
        try:
            return bytes.fromhex(digits)
        except ValueError as error:
            raise self._refuse(name) from error

    def optional(self, name: str, read: Callable[[str], _Item]) -> _Item | None:
        """What `read`, an accessor, gives for the field; None for null."""
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return None
        return read(name)

    def objects(self, name: str, most: int, read: Callable[[Fields], _Item]) -> tuple[_Item, ...]:
        """What `read` makes of the objects in a list of at most `most`."""
        items = self._list(name, most, lambda _: True)
        return tuple(Fields(item, f"an item of '{name}'").all(read) for item in items)

    def object(self, name: str, read: Callable[[Fields], _Item]) -> _Item:
        """What `read` makes of an object."""
        return Fields(self._take(name, lambda _: True), f"'{name}'").all(read)

    def value(self, kind: type[_Value], **others: Read) -> _Value:
        """A value of fields of the same names, each of the type that its class says. `others` read those that
        are neither text, number nor flag, and those with other bounds.
        """
        types: dict[str, str] = kind.__annotations__
        return kind(*((others.get(name) or _READERS[type_])(self, name) for name, type_ in types.items()))

    def numbers(self, name: str, count: int, high: int = MAX_64) -> tuple[int, ...]:
        """A list of exactly `count` whole numbers up to `high`."""
        return tuple(self._take(name, lambda value: _is_row(value, count, high)))

    def rows(self, name: str, most: int, count: int, high: int = MAX_64) -> list[tuple[int, ...]]:
        """A list of at most `most` lists of exactly `count` whole numbers up to `high`."""
        return [tuple(row) for row in self._list(name, most, lambda row: _is_row(row, count, high))]

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """A list of at most `most` texts."""
        return tuple(self._list(name, most, lambda value: _is_text(value, MAX_TEXT)))

    def all(self, read: Callable[[Fields], _Item]) -> _Item:
        """What `read` makes of the fields, if it takes all of them."""
        found = read(self)
        if self._left:
            raise self._refuse(min(self._left))
        return found


Read = Callable[[Fields, str], Any]
"""Reads a field of a name."""

_READERS: Final[dict[str, Read]] = {
    "bool": Fields.flag,
    "int": Fields.integer,
    "int | None": lambda fields, name: fields.optional(name, fields.integer),
    "str": Fields.text,
    "str | None": lambda fields, name: fields.optional(name, fields.text),
}


def within(low: int, high: int = MAX_64) -> Read:
    """Reads a whole number from `low` to `high`."""
    return lambda fields, name: fields.integer(name, low, high)


def up_to(most: int) -> Read:
    """Reads a text of at most `most` characters."""
    return lambda fields, name: fields.text(name, most)


def texts(most: int) -> Read:
    """Reads a list of at most `most` texts."""
    return lambda fields, name: fields.texts(name, most)


def maybe(read: Read) -> Read:
    """Reads what `read` does, or null."""
    return lambda fields, name: fields.optional(name, lambda name: read(fields, name))
