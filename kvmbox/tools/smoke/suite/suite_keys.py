"""The keys of a suite: what each accepts, and what it means. docs/smoke.md has the same table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.run.options.definition import FLAG, REPEATED, SUITE, Option
from kvmbox.run.options.option_table import OPTIONS, names
from kvmbox.tools.smoke.suite.conventions import CONVENTIONS
from kvmbox.tools.smoke.suite.test_case import Pattern, Step

NEEDS: Final = ("hardware-virtualization",)
"""What a test can need of the host."""

MOST_RETRIES: Final = 100
MOST_TIMEOUT_S: Final = 7 * 24 * 3600
MOST_BITS: Final = 64
"""How long a number may be: no option wants more, and Python does not even print thousands of digits."""


class FieldError(ValueError):
    """A value that a key does not accept. `hint` is a line of advice, or None."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Kind(Value):
    """What a key wants: `read` makes of a TOML value what a Test keeps, `schema` is its JSON Schema."""

    read: Callable[[Any], Any]
    schema: Mapping[str, Any]


class Field(Value):
    """A key, and what it wants; `accepts` says that in words.

    `is_option`: it is an option of `kvmbox run`, and a parameter of `kvmbox.Machine` of the same name.
    `is_default`: it may stand in [defaults].
    """

    name: str
    accepts: str
    kind: Kind
    is_option: bool = False
    is_default: bool = True


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise FieldError("wants a text that is not empty")
    if "\0" in value:
        raise FieldError("must not contain a zero byte")
    return value


def _line(value: Any) -> str:
    text = _text(value)
    if not text.isprintable():
        raise FieldError("wants one line of printable characters")
    return text


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise FieldError("wants true or false")
    return value


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldError("wants a whole number")
    if value.bit_length() > MOST_BITS:
        raise FieldError(f"wants a number of at most {MOST_BITS} bits")
    return value


def _number_or_text(value: Any) -> int | str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldError("wants a number, or a text such as '64M'")
    return _number(value)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MOST_TIMEOUT_S:
        raise FieldError(f"wants a number of seconds, more than 0 and at most {MOST_TIMEOUT_S}")
    return float(value)


def _retries(value: Any) -> int:
    number = _number(value)
    if not 0 <= number <= MOST_RETRIES:
        raise FieldError(f"wants a number from 0 to {MOST_RETRIES}")
    return number


def _several(kind: Kind) -> Kind:
    """One value, or an array of them."""

    def read(value: Any) -> tuple[Any, ...]:
        return tuple(kind.read(one) for one in (value if isinstance(value, list) else [value]))

    return Kind(read, {"anyOf": [kind.schema, {"type": "array", "items": kind.schema}]})


def _pattern(value: Any) -> Pattern:
    if isinstance(value, dict):
        if set(value) != {"regex"}:
            raise FieldError(
                "wants a text or { regex = 'PATTERN' }", f"this table has {', '.join(value) or 'nothing'}"
            )
        pattern = Pattern(_text(value["regex"]), is_regex=True)
        try:
            found = pattern.regex.search(b"")
        except (re.error, OverflowError, ValueError, RecursionError) as error:  # x{99999999999}, ((((…
            raise FieldError(f"'{pattern.text}' is no regular expression: {error}") from error
        if found is not None:
            raise FieldError(f"'{pattern.text}' matches an empty text", "it would match whatever is printed")
        return pattern
    if not isinstance(value, str):
        raise FieldError("wants a text or { regex = 'PATTERN' }")
    return Pattern(_text(value))


def _status(value: Any) -> int:
    number = _number(value)
    if not 0 <= number <= 255:
        raise FieldError(f"{number} is no exit status: they are 0 to 255")
    if number and number % 2 == 0:
        raise FieldError(
            f"{number} is even, and a guest's own statuses are 0 and the odd ones",
            "a guest that writes V to the debug-exit port ends with (V << 1 | 1) & 0xff",
        )
    return number


def _steps(value: Any) -> tuple[Step, ...]:
    steps = []
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, dict) or not one or not set(one) <= {"when", "send", "type", "mouse"}:
            raise FieldError("wants tables such as { when = 'login:', send = \"root\\n\" }")
        when = _pattern(one["when"]) if "when" in one else None
        if "type" in one:
            steps.append(Step(when, _keys(one["type"]), on_keyboard=True))
        elif "mouse" in one:
            steps.append(Step(when, _mouse(one["mouse"]), on_keyboard=True))
        else:
            send = _text(one["send"]).encode("utf-8", "surrogateescape") if "send" in one else b""
            steps.append(Step(when, send))
    if any(step.on_keyboard for step in steps) and any(step.send and not step.on_keyboard for step in steps):
        raise FieldError(
            "has 'send' beside 'type' or 'mouse'",
            "what is typed goes to the serial port, or to the keyboard",
        )
    return tuple(steps)


def _keys(value: Any) -> bytes:
    """A text that the keyboard can type."""
    from kvmbox.host.console.us_keyboard import typed

    text = _text(value)
    try:
        typed(text)
    except UsageError as error:
        raise FieldError(f"cannot be typed: {error}", error.hint) from error
    return text.encode()


def _mouse(value: Any) -> bytes:
    """What a text does with the mouse, as it goes over the console of the keyboard."""
    from kvmbox.host.console.mouse_events import acted, sequences

    try:
        return sequences(acted(_text(value)))
    except UsageError as error:
        raise FieldError(str(error), error.hint) from error


def _checks(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise FieldError("wants a table of files and what they contain, such as { '/sys/...' = 'Y' }")
    return tuple(value.items())


def _one_of(choices: tuple[str, ...]) -> Kind:
    def read(value: Any) -> str:
        if _text(value) not in choices:
            raise FieldError(f"'{value}' is none of {', '.join(choices)}")
        text: str = value
        return text

    return Kind(read, {"enum": list(choices)})


_CLOSED: Final = {"type": "object", "additionalProperties": False}
_WORDS: Final = {"type": "string", "minLength": 1}
_FOUND: Final = {"anyOf": [_WORDS, {**_CLOSED, "properties": {"regex": _WORDS}, "required": ["regex"]}]}
_STEP: Final = {
    **_CLOSED,
    "properties": {"when": _FOUND, "send": _WORDS, "type": _WORDS, "mouse": _WORDS},
    "minProperties": 1,
}

TEXT: Final = Kind(_text, _WORDS)
LINE: Final = Kind(_line, _WORDS)
FLAG_VALUE: Final = Kind(_flag, {"type": "boolean"})
NUMBER: Final = Kind(_number, {"type": "integer"})
NUMBER_OR_TEXT: Final = Kind(_number_or_text, {"type": ["integer", "string"]})
SECONDS: Final = Kind(_seconds, {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_TIMEOUT_S})
RETRIES: Final = Kind(_retries, {"type": "integer", "minimum": 0, "maximum": MOST_RETRIES})
PATTERN: Final = Kind(_pattern, _FOUND)
STATUS: Final = Kind(_status, {"type": "integer", "minimum": 0, "maximum": 255})
STEPS: Final = Kind(_steps, {"anyOf": [_STEP, {"type": "array", "items": _STEP}]})
CHECKS: Final = Kind(_checks, {"type": "object", "additionalProperties": {"type": "string"}})


def _option(option: Option) -> Field:
    """The key of an option: TOML has numbers, and repeated options are arrays."""
    if option.choices:
        what, kind = ", ".join(option.choices), _one_of(option.choices)
    elif option.kind == FLAG:
        what, kind = "true or false", FLAG_VALUE
    elif option.bounds is not None or option.type == "int":
        what, kind = "number", NUMBER
    elif option.read is not None and option.type.startswith("int | str"):
        what, kind = "number or text", NUMBER_OR_TEXT
    else:
        what, kind = option.metavar or "text", LINE if option.name == "inject" else TEXT
    if option.kind == REPEATED:
        what, kind = f"{what} or array", _several(kind)
    return Field(option.name, what, kind, is_option=True)


FIELDS: Final[dict[str, Field]] = {
    one.name: one
    for one in (
        # Which test.
        Field("name", "text", LINE, is_default=False),
        Field("image", "file, or name of a bundled guest", TEXT),
        Field("start", "name of a start", LINE),
        Field("groups", "text or array", _several(LINE)),
        # When it is not run, and what its failure means.
        Field("skip", "text: the reason", LINE),
        Field("needs", f"array of {', '.join(NEEDS)}", _several(_one_of(NEEDS))),
        Field("check", "table of files and their content", CHECKS),
        Field("tolerate", "text: the reason", LINE),
        Field("retries", f"0 to {MOST_RETRIES}", RETRIES),
        Field("allow_flaky", "true or false", FLAG_VALUE),
        # The verdict.
        Field("timeout", "seconds", SECONDS),
        Field("convention", ", ".join(CONVENTIONS), _one_of(tuple(CONVENTIONS))),
        Field("status", "number or array", _several(STATUS)),
        Field("expect", "pattern or array", _several(PATTERN)),
        Field("fail_on", "pattern or array", _several(PATTERN)),
        Field("pass_line", "pattern", PATTERN),
        Field("fail_line", "pattern", PATTERN),
        Field("skip_line", "pattern", PATTERN),
        Field("dialogue", "array of tables", STEPS),
        # The machine: options of `kvmbox run`.
        *(_option(OPTIONS[name]) for name in names(SUITE)),
    )
}
"""Every key of a test, in the order of the documentation."""

START_FIELDS: Final[dict[str, Field]] = {
    "name": FIELDS["name"],
    "image": FIELDS["image"],
    "when": Field("when", "text, port:NUMBER or time:SECONDS", TEXT, is_default=False),
    "timeout": FIELDS["timeout"],
    **{name: one for name, one in FIELDS.items() if one.is_option and name != "expect_picture"},
}
"""Every key of a start, in the order of the documentation."""
