"""The keys of a suite: what each accepts, and what it means. docs/smoke.md has the same table."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kvmbox.errors import UsageError
from kvmbox.run.option import FLAG, REPEATED, SUITE, Option
from kvmbox.run.options import OPTIONS, names
from kvmbox.tools.smoke.conventions import CONVENTIONS
from kvmbox.tools.smoke.model import Pattern, Step

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


Place = Callable[[str], str]
"""Makes of a path in a suite one that the host understands."""


@dataclass(frozen=True, slots=True)
class Field:
    """A key. `read` makes of a TOML value what a Test keeps; `accepts` says in words what it wants.

    `is_option`: it is an option of `kvmbox run`, and a parameter of `kvmbox.Machine` of the same name.
    `is_default`: it may stand in [defaults].
    """

    name: str
    accepts: str
    read: Callable[[Any, Place], Any]
    is_option: bool = False
    is_default: bool = True


def _text(value: Any, _place: Place) -> str:
    if not isinstance(value, str) or not value:
        raise FieldError("wants a text that is not empty")
    if "\0" in value:
        raise FieldError("must not contain a zero byte")
    return value


def _line(value: Any, place: Place) -> str:
    text = _text(value, place)
    if not text.isprintable():
        raise FieldError("wants one line of printable characters")
    return text


def _flag(value: Any, _place: Place) -> bool:
    if not isinstance(value, bool):
        raise FieldError("wants true or false")
    return value


def _number(value: Any, _place: Place) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldError("wants a whole number")
    if value.bit_length() > MOST_BITS:
        raise FieldError(f"wants a number of at most {MOST_BITS} bits")
    return value


def _number_or_text(value: Any, place: Place) -> int | str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldError("wants a number, or a text such as '64M'")
    return _number(value, place)


def _seconds(value: Any, _place: Place) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MOST_TIMEOUT_S:
        raise FieldError(f"wants a number of seconds, more than 0 and at most {MOST_TIMEOUT_S}")
    return float(value)


def _retries(value: Any, place: Place) -> int:
    number = _number(value, place)
    if not 0 <= number <= MOST_RETRIES:
        raise FieldError(f"wants a number from 0 to {MOST_RETRIES}")
    return number


def _several(read: Callable[[Any, Place], Any]) -> Callable[[Any, Place], tuple[Any, ...]]:
    """One value, or an array of them."""

    def read_several(value: Any, place: Place) -> tuple[Any, ...]:
        return tuple(read(one, place) for one in (value if isinstance(value, list) else [value]))

    return read_several


def _pattern(value: Any, place: Place) -> Pattern:
    if isinstance(value, dict):
        if set(value) != {"regex"}:
            raise FieldError(
                "wants a text or { regex = 'PATTERN' }", f"this table has {', '.join(value) or 'nothing'}"
            )
        pattern = Pattern(_text(value["regex"], place), is_regex=True)
        try:
            found = pattern.regex.search(b"")
        except (re.error, OverflowError, ValueError, RecursionError) as error:  # x{99999999999}, ((((…
            raise FieldError(f"'{pattern.text}' is no regular expression: {error}") from error
        if found is not None:
            raise FieldError(f"'{pattern.text}' matches an empty text", "it would match whatever is printed")
        return pattern
    if not isinstance(value, str):
        raise FieldError("wants a text or { regex = 'PATTERN' }")
    return Pattern(_text(value, place))


def _status(value: Any, place: Place) -> int:
    number = _number(value, place)
    if not 0 <= number <= 255:
        raise FieldError(f"{number} is no exit status: they are 0 to 255")
    if number and number % 2 == 0:
        raise FieldError(
            f"{number} is even, and a guest's own statuses are 0 and the odd ones",
            "a guest that writes V to the debug-exit port ends with (V << 1 | 1) & 0xff",
        )
    return number


def _steps(value: Any, place: Place) -> tuple[Step, ...]:
    steps = []
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, dict) or not one or not set(one) <= {"when", "send", "type"}:
            raise FieldError("wants tables such as { when = 'login:', send = \"root\\n\" }")
        when = _pattern(one["when"], place) if "when" in one else None
        if "type" in one:
            steps.append(Step(when, _keys(one["type"], place), on_keyboard=True))
        else:
            send = _text(one["send"], place).encode("utf-8", "surrogateescape") if "send" in one else b""
            steps.append(Step(when, send))
    if any(step.on_keyboard for step in steps) and any(step.send and not step.on_keyboard for step in steps):
        raise FieldError(
            "has both 'send' and 'type'", "what is typed goes to the serial port, or to the keyboard"
        )
    return tuple(steps)


def _keys(value: Any, place: Place) -> bytes:
    """A text that the keyboard can type."""
    from kvmbox.host.keys import typed

    text = _text(value, place)
    try:
        typed(text)
    except UsageError as error:
        raise FieldError(f"cannot be typed: {error}", error.hint) from error
    return text.encode()


def _checks(value: Any, _place: Place) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise FieldError("wants a table of files and what they contain, such as { '/sys/...' = 'Y' }")
    return tuple(value.items())


def _one_of(choices: tuple[str, ...]) -> Callable[[Any, Place], str]:
    def read(value: Any, place: Place) -> str:
        if _text(value, place) not in choices:
            raise FieldError(f"'{value}' is none of {', '.join(choices)}")
        text: str = value
        return text

    return read


def _file(value: Any, place: Place) -> str:
    return place(_text(value, place))


def _module(value: Any, place: Place) -> str:
    path, comma, arguments = _text(value, place).partition(",")
    return place(path) + comma + arguments


def _firmware(value: Any, place: Place) -> str:
    return _text(value, place) if value in ("builtin", "none") else _file(value, place)


def _fw_cfg(value: Any, place: Place) -> str:
    name, equals, path = _text(value, place).partition("=")
    return name + equals + place(path) if path else name + equals


_OWN: Final[dict[str, Callable[[Any, Place], Any]]] = {
    "modules": _module,
    "bios": _firmware,
    "fw_cfg": _fw_cfg,
    "disks": _module,
    "inject": _line,
}
"""Options whose texts are read in ways of their own."""


def _option(option: Option) -> Field:
    """The key of an option: TOML has numbers, and repeated options are arrays."""
    read: Callable[[Any, Place], Any]
    if option.choices:
        what, read = ", ".join(option.choices), _one_of(option.choices)
    elif option.kind == FLAG:
        what, read = "true or false", _flag
    elif option.bounds is not None or option.type == "int":
        what, read = "number", _number
    elif option.read is not None and option.type.startswith("int | str"):
        what, read = "number or text", _number_or_text
    else:
        what, read = option.metavar or "text", _OWN.get(option.name, _file if option.file else _text)
    if option.kind == REPEATED:
        what, read = f"{what} or array", _several(read)
    return Field(option.name, what, read, is_option=True)


FIELDS: Final[dict[str, Field]] = {
    one.name: one
    for one in (
        # Which test.
        Field("name", "text", _line, is_default=False),
        Field("image", "file, or name of a bundled guest", _text),  # placed by whoever knows the bundled ones
        Field("start", "name of a start", _line),
        Field("groups", "text or array", _several(_line)),
        # When it is not run, and what its failure means.
        Field("skip", "text: the reason", _line),
        Field("needs", f"array of {', '.join(NEEDS)}", _several(_one_of(NEEDS))),
        Field("check", "table of files and their content", _checks),
        Field("tolerate", "text: the reason", _line),
        Field("retries", f"0 to {MOST_RETRIES}", _retries),
        Field("allow_flaky", "true or false", _flag),
        # The verdict.
        Field("timeout", "seconds", _seconds),
        Field("convention", ", ".join(CONVENTIONS), _one_of(tuple(CONVENTIONS))),
        Field("status", "number or array", _several(_status)),
        Field("expect", "pattern or array", _several(_pattern)),
        Field("fail_on", "pattern or array", _several(_pattern)),
        Field("pass_line", "pattern", _pattern),
        Field("fail_line", "pattern", _pattern),
        Field("skip_line", "pattern", _pattern),
        Field("dialogue", "array of tables", _steps),
        # The machine: options of `kvmbox run`.
        *(_option(OPTIONS[name]) for name in names(SUITE)),
    )
}
"""Every key of a test, in the order of the documentation."""

START_FIELDS: Final[dict[str, Field]] = {
    "name": FIELDS["name"],
    "image": FIELDS["image"],
    "when": Field("when", "text, port:NUMBER or time:SECONDS", _text, is_default=False),
    "timeout": FIELDS["timeout"],
    **{name: one for name, one in FIELDS.items() if one.is_option},
}
"""Every key of a start, in the order of the documentation."""


def place_beside(file: str) -> Place:
    """Paths of a suite are relative to the folder of its file."""
    folder = os.path.dirname(file)
    return lambda path: os.path.join(folder, path)
