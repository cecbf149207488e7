"""A suite file in TOML: `[defaults]`, `[[start]]`, `[[test]]`. Every error has file, line and a hint."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.parts.snapshot.start_options import OF_THE_SNAPSHOT
from kvmbox.tools.smoke.suite.command_line import making_of, with_paths
from kvmbox.tools.smoke.suite.conventions import CONVENTIONS, PATTERN
from kvmbox.tools.smoke.suite.suite_keys import FIELDS, START_FIELDS, Field, FieldError
from kvmbox.tools.smoke.suite.test_case import DEFAULT_TIMEOUT_S, Origin, Start, Test
from kvmbox.tools.smoke.suite.toml_lines import Path, key_lines

MOST_MESSAGE: Final = 400
"""Characters of an error."""
DEFAULTS: Final = "defaults"
TESTS: Final = "test"
STARTS: Final = "start"
OF_THE_START: Final = frozenset({"image", *OF_THE_SNAPSHOT})
"""The keys that the start of a test decides."""
VERDICT_LINES: Final = {"pass_line": "pass", "fail_line": "fail", "skip_line": "skip"}
_KEYS: Final = {
    "module": "modules",
    "disk": "disks",
    "cdrom": "cdroms",
    "net": "nets",
    "snapshot-when": "when",
}
"""Keys that have another name than their option."""
SAME_IN_TEST: Final = (
    *("timeout", "expect", "fail_on", "dialogue", "groups", "skip", "needs", "tolerate", "retries"),
    "allow_flaky",
)
"""Keys that are fields of a `Test`."""
NO_CHECK: Final[Callable[[Test], None]] = lambda _test: None  # noqa: E731 - a default


def parse_suite(
    text: str,
    file: str,
    *,
    name: str = "",
    find_image: Callable[[str, str], str] | None = None,
    check: Callable[[Test], None] = NO_CHECK,
) -> list[Test]:
    """The tests of the suite `text`, which stands in `file`. `name` is the suite's in reports.

    `find_image` makes of an image that a suite names, and its file's folder, what is booted. `check` refuses
    a test by a UsageError that names options as the command line spells them. Raises UsageError.
    """
    reader = _Reader(text, file, name or suite_name(file), find_image or os.path.join)
    return reader.read(check)


def suite_name(file: str) -> str:
    """What reports call a suite: its file without folder and ending."""
    base = os.path.basename(file)
    for ending in (".guest.toml", ".toml", ".cfg"):
        if base.endswith(ending) and base != ending:
            return base.removesuffix(ending)
    return base


class _Reader:
    def __init__(self, text: str, file: str, name: str, find_image: Callable[[str, str], str]) -> None:
        self.file = file
        self.name = name
        self.find_image = find_image
        try:
            self.content: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"\(at line (\d+), column \d+\)", str(error))
            # At the end of the document there is no number.
            line = int(found[1]) if found else text.count("\n") + 1
            what = str(error).partition(" (at ")[0]
            raise self.error(
                line, f"this is not TOML: {what}", "https://toml.io describes the syntax"
            ) from error
        except ValueError as error:  # of int(): TOML itself has no such limit
            long = re.compile(r"[\d_]{4000}")
            line = next((at for at, one in enumerate(text.split("\n"), 1) if long.search(one)), 0)
            raise self.error(line, "a number has too many digits", "no key accepts such a number") from error
        except RecursionError as error:
            raise self.error(0, "arrays or tables are nested too deeply", None) from error
        self.lines = key_lines(text)

    def error(self, line: int, message: str, hint: str | None) -> UsageError:
        if len(message) > MOST_MESSAGE:  # it repeats what a file says, which may be long
            message = f"{message[: MOST_MESSAGE // 2]} … {message[-MOST_MESSAGE // 2 :]}"
        return UsageError(f"{Origin(self.file, line)}: {message}", hint=hint)

    def read(self, check: Callable[[Test], None]) -> list[Test]:
        for key in self.content:
            if key not in (DEFAULTS, STARTS, TESTS):
                raise self.error(
                    self._line((key,)),
                    f"'{key}' is none of [{DEFAULTS}], [[{STARTS}]] and [[{TESTS}]]",
                    _did_you_mean(key, (DEFAULTS, STARTS, TESTS))
                    or f"what holds for all tests belongs in [{DEFAULTS}]",
                )
        defaults = self._values((DEFAULTS,), self.content.get(DEFAULTS, {}), f"[{DEFAULTS}]", FIELDS)
        starts = self._starts(defaults, check)
        tables = self._tables(TESTS)
        if not tables:
            raise self.error(0, "there is no test in it", f"each test begins with [[{TESTS}]]")
        tests: list[Test] = []
        names: dict[str, int] = {}
        for number, table in enumerate(tables):
            at: Path = (TESTS, number)
            test = self._test(at, defaults, self._values(at, table, f"[[{TESTS}]]", FIELDS), starts)
            if test.name in names:
                raise self.error(
                    self._line((*at, "name"), at),
                    f"there is a test '{test.name}' already, in line {names[test.name]}",
                    "give each test a name of its own: reports and the history tell them apart by it",
                )
            names[test.name] = test.origin.line
            self._check(test, at, check)
            tests.append(test)
        return tests

    def _tables(self, kind: str) -> list[Any]:
        tables = self.content.get(kind, [])
        if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            raise self.error(
                self._line((kind,)),
                f"'{kind}' is no array of tables",
                f"each {kind} begins with [[{kind}]]",
            )
        return tables

    def _starts(self, defaults: dict[str, Any], check: Callable[[Test], None]) -> dict[str, Start]:
        """The starts by name. [defaults] hold for them, too: image, time limit and options."""
        starts: dict[str, Start] = {}
        inherited = {key: value for key, value in defaults.items() if key in START_FIELDS}
        for number, table in enumerate(self._tables(STARTS)):
            at: Path = (STARTS, number)
            values = inherited | self._values(at, table, f"[[{STARTS}]]", START_FIELDS)
            line = self._line(at)
            for key, hint in (
                ("name", "a test names its start: start = 'booted'"),
                ("image", "name the file of the kernel, or a bundled guest"),
                ("when", "say what the guest prints where tests begin, such as when = 'login: '"),
            ):
                if key not in values:
                    raise self.error(line, f"this start has no '{key}'", hint)
            start = Start(
                name=values["name"],
                image=self.find_image(os.path.dirname(self.file), values["image"]),
                origin=Origin(self.file, line),
                when=values["when"],
                options=self._placed(
                    {key: value for key, value in values.items() if START_FIELDS[key].is_option}
                ),
                timeout=values.get("timeout", DEFAULT_TIMEOUT_S),
            )
            if start.name in starts:
                raise self.error(
                    self._line((*at, "name"), at),
                    f"there is a start '{start.name}' already, in line {starts[start.name].origin.line}",
                    "give each start a name of its own",
                )
            # The boot that makes the snapshot is checked as a test is.
            boot = making_of(start, "snapshot")
            probe = Test(start.name, self.name, boot.image, start.origin, boot.options, boot.timeout)
            self._check(probe, at, check)
            starts[start.name] = start
        return starts

    def _values(self, at: Path, table: Any, where: str, fields: Mapping[str, Field]) -> dict[str, Any]:
        if not isinstance(table, dict):
            raise self.error(
                self._line(at), f"'{at[-1]}' is no table", f"write {where} and the keys below it"
            )
        values = {}
        for key, value in table.items():
            known = fields.get(key)
            if known is None or (at == (DEFAULTS,) and not known.is_default):
                raise self.error(
                    self._line((*at, key), at),
                    f"'{key}' is no key of {where}",
                    _did_you_mean(key, tuple(fields)) or "docs/smoke.md lists the keys",
                )
            try:
                values[key] = known.kind.read(value)
            except FieldError as error:
                hint = error.hint or f"'{key}' is: {known.accepts}"
                raise self.error(self._line((*at, key), at), f"'{key}' {error}", hint) from error
        return values

    def _test(
        self, at: Path, defaults: dict[str, Any], own: dict[str, Any], starts: Mapping[str, Start]
    ) -> Test:
        values = defaults | own
        line = self._line(at)
        start = self._start_of(at, values, own, starts)
        if start is not None:
            values = {key: value for key, value in values.items() if key not in OF_THE_START}
        image = start.image if start is not None else values.get("image")
        if image is None:
            raise self.error(
                line, "this test has no 'image'", "name the file of the kernel, or a bundled guest"
            )
        self._check_convention(at, values)
        lines = tuple((kind, values[key]) for key, kind in VERDICT_LINES.items() if key in values)
        return Test(
            name=values.get("name") or os.path.splitext(os.path.basename(image))[0] or image,
            suite=self.name,
            image=image if start is not None else self.find_image(os.path.dirname(self.file), image),
            origin=Origin(self.file, line),
            options=self._options(at, values),
            convention=values.get("convention", PATTERN if lines else "kvmbox"),
            statuses=values.get("status", ()),
            verdict_lines=lines,
            checks=values.get("check", ()),
            start=start,
            **{key: values[key] for key in SAME_IN_TEST if key in values},
        )

    def _options(self, at: Path, values: dict[str, Any]) -> dict[str, Any]:
        """The options of the machine: a dialogue that types on the keyboard needs the console for that."""
        options = self._placed({key: value for key, value in values.items() if FIELDS[key].is_option})
        if not any(step.on_keyboard for step in values.get("dialogue", ())):
            return options
        if options.setdefault("keyboard", "console") != "console":
            raise self._clash(
                at,
                "keyboard",
                f"'keyboard' is '{options['keyboard']}', and the dialogue uses the keyboard or the mouse",
                "leave out 'keyboard', or use 'send' in the dialogue",
            )
        return options

    def _placed(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The same options: paths are relative to the folder of the file."""
        folder = os.path.dirname(self.file)
        return with_paths(options, lambda path: os.path.join(folder, path))

    def _start_of(
        self, at: Path, values: dict[str, Any], own: dict[str, Any], starts: Mapping[str, Start]
    ) -> Start | None:
        """What the test is forked from, or None. What the snapshot decides is refused in the test itself."""
        name = values.get("start")
        if name is None:
            return None
        if name not in starts:
            known = f"the starts are: {', '.join(starts)}" if starts else "a start begins with [[start]]"
            raise self._clash(
                at, "start", f"there is no start '{name}'", _did_you_mean(name, tuple(starts)) or known
            )
        for key in own:
            if key in OF_THE_START:
                raise self._clash(
                    at,
                    key,
                    f"'{key}' contradicts 'start': the machine is as the start '{name}' has it",
                    f"move '{key}' to [[{STARTS}]], in line {starts[name].origin.line}",
                )
        return starts[name]

    def _check_convention(self, at: Path, values: dict[str, Any]) -> None:
        """Refuse keys that mean nothing beside one another: a test that silently checks less is a lie."""
        lines = [key for key in VERDICT_LINES if key in values]
        convention = values.get("convention", PATTERN if lines else "kvmbox")
        if lines and convention != PATTERN:
            raise self._clash(
                at,
                lines[0],
                f"'{lines[0]}' needs convention '{PATTERN}', and this is '{convention}'",
                "leave out 'convention', or use 'expect' and 'fail_on'",
            )
        if convention == PATTERN and "pass_line" not in values:
            raise self._clash(
                at,
                "convention",
                f"convention '{PATTERN}' needs 'pass_line'",
                "say what a passing guest prints",
            )
        if "expect_picture" in values and ("expect" in values or convention != "kvmbox"):
            raise self._clash(
                at,
                "expect_picture",
                "'expect_picture' ends the boot: what 'expect' and 'convention' want may not be there yet",
                "leave out one of the two",
            )
        if "status" in values and not CONVENTIONS[convention].takes_status:
            raise self._clash(
                at,
                "status",
                f"'status' means nothing to convention '{convention}', which decides by itself",
                "leave out one of the two",
            )

    def _clash(self, at: Path, key: str, message: str, hint: str) -> UsageError:
        return self.error(self._line((*at, key), (DEFAULTS, key), at), message, hint)

    def _check(self, test: Test, at: Path, check: Callable[[Test], None]) -> None:
        try:
            check(test)
        except UsageError as error:
            found = re.search(r"--([a-z][a-z-]*)", str(error))
            key = _KEYS.get(found[1], found[1].replace("-", "_")) if found else ""
            message = str(error) if found is None else str(error).replace(f"--{found[1]}", f"'{key}'")
            line = self._line((*at, key), (DEFAULTS, key), at)
            raise self.error(line, message, error.hint or "docs/smoke.md lists the keys") from error

    def _line(self, *paths: Path) -> int:
        """The line of the first of these that has one: something in the file is in the empty path.

        What has no line of its own stands where the first thing in it does ([a.b] for "a"), or where what it
        is in does (a key of an inline table).
        """
        for path in paths:
            inside = [line for other, line in self.lines.items() if other[: len(path)] == path]
            if inside:
                return min(inside)
        return self._line(paths[0][:-1])


def _did_you_mean(key: str, known: tuple[str, ...]) -> str | None:
    found = difflib.get_close_matches(key.replace("-", "_"), known, 1)
    return f"did you mean '{found[0]}'?" if found else None
