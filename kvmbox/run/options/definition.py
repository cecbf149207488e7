"""What is known of one option of a run: a row of the table in `run.options.option_table`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.run.options.values import several
from kvmbox.run.part_loader import load_any

ONE: Final = "one"
FLAG: Final = "flag"
REPEATED: Final = "repeated"

IMAGE: Final = 1
"""A snapshot decides it: it is for machines that boot an image."""
FILE: Final = 2
"""A configuration file may set it: it names no file, and takes no isolation away."""
SUITE: Final = 4
"""It is a key of a suite."""
COMMAND: Final = 8
"""It is an option of `kvmbox run` alone, and no parameter of `kvmbox.Machine`."""

READ: Final = "read"
WRITTEN: Final = "written"


class Option(Value):
    """One option. `name` is the parameter of `Machine`, and the option's name unless `flag` is given.

    `help` is a text of the command's help. `default` is that of `Machine`; `shown` is how the help tells it,
    where that is another text. `metavar` or `choices` say what the value looks like. `bounds` are those of a
    number. `read` makes the value of what a person has typed or a program has passed, and raises ValueError.
    `parse` does the same, raises UsageError, and is "module:function", imported when it is called. Of an
    option that is REPEATED both get one value. `type` is the annotation of the parameter, where it
    does not follow from the rest. `marks` say whom the option is for. `file` says whether the run reads or
    writes the file that the value names. `needs` is the option without which this one means nothing, and what
    to do then. `part` is the part of a run that obeys it (`run.parts`), if the core does not.
    """

    name: str
    help: str = ""
    default: Any = None
    shown: str = ""
    flag: str = ""
    kind: str = ONE
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    bounds: tuple[int, int | None] | None = None
    read: Callable[[Any], Any] | None = None
    parse: str = ""
    type: str = ""
    marks: int = 0
    file: str = ""
    needs: tuple[str, str] | None = None
    part: str = ""

    @property
    def spelling(self) -> str:
        """The option as it is written on the command line."""
        return self.flag or f"--{self.name.replace('_', '-')}"

    @property
    def full_help(self) -> str:
        """The help, and what the default is."""
        shown = self.shown or (str(self.default) if type(self.default) in (int, str) else "")
        return f"{self.help}  [default: {shown}]" if shown else self.help

    @property
    def parameter_default(self) -> Any:
        """The default of the parameter of `Machine`."""
        if self.default is None and self.kind != ONE:
            return False if self.kind == FLAG else ()
        return self.default

    @property
    def annotation(self) -> str:
        """The type of the parameter of `Machine`, as Python text."""
        if self.type:
            return self.type
        if self.kind != ONE:
            return "bool" if self.kind == FLAG else "Several[str]"
        found = "str | os.PathLike[str]" if self.file else "str"
        if self.choices:
            found = f"Literal[{', '.join(map(repr, self.choices))}]".replace("'", '"')
        return found if self.default is not None else f"{found} | None"

    def take(self, value: Any) -> Any:
        """What a run keeps of a parameter of `Machine`. Raises UsageError."""
        try:
            return self._taken(value)
        except (TypeError, AttributeError, ValueError) as error:  # a program passes anything
            raise UsageError(f"{self.spelling}: {value!r} is no {self.annotation}") from error

    def _taken(self, value: Any) -> Any:
        if isinstance(value, Mapping) and self.kind == REPEATED and not self.parse:
            return value
        if self.kind == REPEATED:
            return tuple(map(self._one, several(self.spelling, value)))
        return None if value is None and self.default is None else self._one(value)

    def _one(self, value: Any) -> Any:
        if self.read is not None:
            try:
                return self.read(value)
            except ValueError as error:
                raise UsageError(f"{self.spelling}: {error}") from error
        if self.choices and value not in self.choices:
            raise UsageError(f"{self.spelling} '{value}' is none of {', '.join(self.choices)}")
        if self.bounds is not None:
            self._check_bounds(value)
        if self.parse:
            return load_any(*self.parse.split(":"))(value)
        is_text = not (self.kind == FLAG or self.type or self.choices or self.bounds)
        return os.fspath(value) if is_text or isinstance(value, os.PathLike) else value

    def _check_bounds(self, value: int) -> None:
        from operator import index

        assert self.bounds is not None
        index(value)
        least, most = self.bounds
        if most is not None and not least <= value <= most:
            raise UsageError(f"{self.spelling} {value} is not between {least} and {most}")
        if value < least:
            raise UsageError(f"{self.spelling} {value} is less than {least}")

    def paths(self, value: Any) -> Iterator[str]:
        """The files that a value which `take` has made names."""
        for one in value if self.kind == REPEATED else (value,):
            if one is not None:
                yield one if isinstance(one, str) else one.path


class Section(Value):
    """Options of one purpose, in the order of the help."""

    title: str
    options: tuple[Option, ...]
