"""The stand-ins behave like what they stand for, and the spawner loads nothing heavy."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import typing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import new_class

import pytest

import kvmbox
from kvmbox.base import light_typing
from kvmbox.base.value_classes import NamedTuple, Value


class Point(NamedTuple):
    """A tuple with a method."""

    x: int
    y: int

    def swapped(self) -> tuple[int, int]:
        return self.y, self.x


def test_lean_named_tuple_is_a_tuple_with_names() -> None:
    point = Point(1, 2)  # type: ignore[call-arg]

    assert point == (1, 2)  # type: ignore[comparison-overlap]
    assert (point.x, point.y) == (1, 2)
    assert point.swapped() == (2, 1)
    assert repr(point) == "Point(x=1, y=2)"
    assert Point.__doc__ == "A tuple with a method."
    assert not hasattr(point, "__dict__")


def test_lean_named_tuple_behaves_like_that_of_typing() -> None:
    def update(more: dict[str, typing.Any], body: dict[str, typing.Any]) -> None:
        body.update(more)

    made: list[typing.Any] = []
    for base in (typing.NamedTuple, NamedTuple):
        annotations = {"__annotations__": {"x": int, "y": int, "z": int}, "z": 3, "__module__": __name__}
        made.append(new_class("Made", (base,), exec_body=partial(update, annotations)))
    for one in made:
        globals()["Made"] = one
        value = one(1, y=2)
        assert (value, value.z, tuple(value), repr(value)) == ((1, 2, 3), 3, (1, 2, 3), "Made(x=1, y=2, z=3)")
        assert (one._fields, one.__match_args__, value._asdict()) == (
            *2 * (("x", "y", "z"),),
            {"x": 1, "y": 2, "z": 3},
        )
        assert (one._make(iter((4, 5, 6))), value._replace(y=7)) == ((4, 5, 6), (1, 7, 3))
        assert [type(other) for other in (copy.copy(value), pickle.loads(pickle.dumps(value)))] == [one, one]
        for values, named in (((1,), {}), ((1, 2, 3, 4), {}), ((1, 2), {"y": 3}), ((1, 2), {"w": 3})):
            with pytest.raises(TypeError):
                one(*values, **named)


LIGHT_TYPING: typing.Any = light_typing
"""What the type checker does not see."""


@pytest.mark.parametrize("literal", [typing.Literal, LIGHT_TYPING.Literal])
@pytest.mark.parametrize("ask", [typing.get_args, LIGHT_TYPING.get_args])
def test_texts_of_a_literal_are_told_by_bundle_and_source_alike(literal: typing.Any, ask: typing.Any) -> None:
    assert ask(literal["a", "b"]) == ("a", "b")
    assert ask(literal["a"]) == ("a",)


class Plain(Value):
    """A value with a default and a method."""

    number: int
    words: tuple[str, ...] = ()
    named: str = "x"

    @property
    def double(self) -> int:
        return 2 * self.number


@dataclass(frozen=True, slots=True)
class Model:
    """What `Plain` must behave like."""

    number: int
    words: tuple[str, ...] = ()
    named: str = "x"

    @property
    def double(self) -> int:
        return 2 * self.number


class Other(Value):
    """Other values with the same fields are not equal."""

    number: int
    words: tuple[str, ...] = ()
    named: str = "x"


class Empty(Value):
    """No field at all."""


CALLS: list[tuple[tuple[object, ...], dict[str, object]]] = [
    ((1,), {}),
    ((1, ("a",)), {}),
    ((1, ("a",), "y"), {}),
    ((1,), {"named": "y"}),
    ((), {"named": "y", "number": 3}),
    ((), {}),
    ((), {"named": "y"}),
    ((1,), {"number": 2}),
    ((1,), {"unknown": 2}),
    ((1, (), "x", 4), {}),
]


@pytest.mark.parametrize(("values", "named"), CALLS)
def test_value_is_made_as_a_dataclass_is(values: tuple[object, ...], named: dict[str, object]) -> None:
    def outcome(kind: type) -> str:
        try:
            return repr(kind(*values, **named)).partition("(")[2]
        except TypeError:
            return "TypeError"

    assert outcome(Plain) == outcome(Model)


def test_value_compares_by_kind_and_fields() -> None:
    assert Plain(1, ("a",)) == Plain(1, ("a",))
    assert Plain(1) != Plain(2)
    assert Plain(1) != Plain(1, named="y")
    assert Plain(1) != Other(1)
    assert Plain(1) != (1, (), "x")
    assert Empty() == Empty()
    assert {Plain(1), Plain(1), Plain(2)} == {Plain(1), Plain(2)}


def test_value_is_immutable_and_has_no_dictionary() -> None:
    value = Plain(1)

    with pytest.raises(AttributeError, match="immutable"):
        value.number = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        value.unknown = 2
    with pytest.raises(AttributeError, match="immutable"):
        del value.number
    assert value == Plain(1)
    assert not hasattr(value, "__dict__")


def test_value_has_methods_and_patterns_and_copies() -> None:
    match Plain(4, ("a",)):
        case Plain(number, words, named=name):
            assert (number, words, name) == (4, ("a",), "x")
    assert Plain(4).double == 8
    assert Plain(4, ("a",)).as_dict() == {"number": 4, "words": ("a",), "named": "x"}
    assert Plain.__doc__ == "A value with a default and a method."
    assert copy.deepcopy(Plain(4)) == Plain(4)
    assert pickle.loads(pickle.dumps(Plain(4))) == Plain(4)


class Derived(Plain):
    """A value that has the fields of another one, and one more."""

    more: int = 0


def test_value_of_a_value_has_its_fields_first() -> None:
    value = Derived(4, more=5)

    assert value.as_dict() == {"number": 4, "words": (), "named": "x", "more": 5}
    assert Derived(4, ("a",), "y", 5) == value.replaced(words=("a",), named="y")
    assert value.double == 8
    assert value != Plain(4)
    assert Plain(4).as_dict() == {"number": 4, "words": (), "named": "x"}
    assert not hasattr(value, "__dict__")
    assert pickle.loads(pickle.dumps(value)) == value


@pytest.mark.parametrize("bases", [(Plain, Point), (Point, Plain), (Plain, Other)])
def test_value_of_something_else_is_refused(bases: tuple[type, ...]) -> None:
    with pytest.raises(TypeError, match="nothing else"):
        new_class("Derived", bases)


def test_spawner_and_models_load_neither_typing_nor_dataclasses() -> None:
    code = (
        f"import sys; sys.path.append({str(Path(kvmbox.__file__).parent.parent)!r}); "
        "import kvmbox.jail.spawner, kvmbox.jail.server; "
        "print(*sorted({'typing', 'dataclasses', 'inspect', 're', 'enum', 'socket'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
