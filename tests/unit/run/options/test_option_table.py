"""The table of options: what derives from a row, and what is made of a value."""

from __future__ import annotations

import inspect
import pydoc
from importlib import import_module
from pathlib import Path

import pytest

from kvmbox import Machine, ModuleSpec, UsageError
from kvmbox.run.options import choices
from kvmbox.run.options.definition import COMMAND, FILE, FLAG, IMAGE, ONE, REPEATED, SUITE, Option
from kvmbox.run.options.option_table import OPTIONS, PARAMETERS, SECTIONS, names, taken
from kvmbox.tools.smoke.suite.suite_keys import FIELDS
from tools import generate_options


def test_names_and_spellings_are_each_of_one_option() -> None:
    rows = [option for section in SECTIONS for option in section.options]
    assert len({one.name for one in rows}) == len({one.spelling for one in rows}) == len(rows)
    assert all(one.help for one in rows)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_row_says_what_its_value_looks_like(option: Option) -> None:
    assert (option.kind == FLAG) == (option.metavar is None and not option.choices)
    assert option.parse == "" or callable(resolved(option))
    assert option.needs is None or option.needs[0] in OPTIONS


def resolved(option: Option) -> object:
    module, _, function = option.parse.partition(":")
    return getattr(import_module(module), function)


def test_marks_agree_with_each_other() -> None:
    for option in OPTIONS.values():
        assert not (option.marks & COMMAND and option.marks & (IMAGE | SUITE)), option.name
        assert not (option.marks & FILE and option.file), option.name
    assert set(names(SUITE)) == {one.name for one in FIELDS.values() if one.is_option}


def test_generated_types_are_those_of_the_table() -> None:
    # `make generated` writes them.
    assert generate_options.TYPES.read_text(encoding="utf-8") == generate_options.types()


def test_page_of_the_command_line_has_the_table() -> None:
    text = generate_options.PAGE.read_text(encoding="utf-8")
    assert generate_options.page(text) == text
    assert set(generate_options.SEE) <= set(OPTIONS)


def test_signature_has_each_parameter_with_its_type_and_default() -> None:
    parameters = inspect.signature(Machine).parameters
    assert list(parameters) == ["image", *PARAMETERS]
    assert parameters["cpus"].annotation is int
    assert parameters["restart_budget"].annotation == int | None
    assert parameters["serial"].default == ()
    assert "memory: int | str = 134217728" in pydoc.plain(pydoc.render_doc(Machine))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"memroy": 1}, "Machine() got an unexpected keyword argument 'memroy'. Did you mean 'memory'?"),
        ({"zzz": 1}, "Machine() got an unexpected keyword argument 'zzz'"),
        ({"json_path": "x"}, "Machine() got an unexpected keyword argument 'json_path'"),
    ],
)
def test_unknown_parameter_is_a_type_error_that_names_a_close_one(
    given: dict[str, object], told: str
) -> None:
    with pytest.raises(TypeError) as caught:
        taken(given)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("option", "annotation"),
    [
        (Option("x"), "str | None"),
        (Option("x", default="a"), "str"),
        (Option("x", kind=FLAG), "bool"),
        (Option("x", kind=REPEATED), "Several[str]"),
        (Option("x", file="read"), "str | os.PathLike[str] | None"),
        (Option("x", choices=("a", "b")), 'Literal["a", "b"] | None'),
        (Option("x", default="a", choices=("a", "b")), 'Literal["a", "b"]'),
        (Option("x", kind=ONE, type="int | None"), "int | None"),
    ],
)
def test_type_follows_from_the_row(option: Option, annotation: str) -> None:
    assert option.annotation == annotation


def test_repeated_option_takes_one_value_or_several(tmp_path: Path) -> None:
    option = OPTIONS["modules"]
    assert option.take("a,b") == option.take(["a,b"]) == (ModuleSpec("a", "b"),)
    assert option.take([ModuleSpec("c"), "d"]) == (ModuleSpec("c"), ModuleSpec("d"))
    assert OPTIONS["source"].take(tmp_path) == (str(tmp_path),)
    assert OPTIONS["expect"].take(b"x") == OPTIONS["expect"].take(["x"]) == (b"x",)


def test_value_that_is_none_is_no_value_where_that_is_the_default() -> None:
    assert OPTIONS["core"].take(None) is None
    assert OPTIONS["debug_exit"].take(None) is None
    with pytest.raises(UsageError, match="--boot 'None' is none of auto, "):
        OPTIONS["boot"].take(None)


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "--success-status 0 is not between 1 and 255"), (256, "--success-status 256 is not between")],
)
def test_number_out_of_bounds_is_refused(value: int, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        OPTIONS["success_status"].take(value)


def test_option_that_needs_another_one_is_refused_without_it() -> None:
    with pytest.raises(UsageError, match="--core-always needs --core") as caught:
        taken({"core_always": True})
    assert caught.value.hint == "name the file of the core"
    assert taken({"core_always": False})["core"] is None
    assert taken({"core_always": True, "core": "x"})["core_always"] is True


def test_files_that_a_value_names() -> None:
    assert list(OPTIONS["core"].paths(None)) == []
    assert list(OPTIONS["core"].paths("x")) == ["x"]
    assert list(OPTIONS["modules"].paths((ModuleSpec("a", "b"), ModuleSpec("c")))) == ["a", "c"]


def test_defaults_of_the_help_are_those_of_machine() -> None:
    assert OPTIONS["memory"].full_help.endswith("  [default: 128M]")
    assert OPTIONS["pin"].full_help.endswith(f"  [default: {choices.DEFAULT_PIN}]")
    assert OPTIONS["append"].full_help == OPTIONS["append"].help
