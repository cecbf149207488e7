"""Where each key of a TOML file stands: the standard library's parser gives values, and no lines.

This scanner runs on text that `tomllib` has accepted. So it need not check anything, and only has to know
where statements, strings and brackets begin and end.
"""

from __future__ import annotations

from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys and, in arrays of tables, numbers: ("test", 0, "image")."""


def key_lines(text: str) -> dict[Path, int]:
    """The line (from 1) of each table header and of each key outside of inline values."""
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.table: Path = ()
        self.counts: dict[Path, int] = {}
        self._line = 1
        self._counted = 0

    def scan(self) -> dict[Path, int]:
        while self._skip_blank():
            self._line += self.text.count("\n", self._counted, self.at)
            self._counted = self.at
            line = self._line
            if self.text[self.at] == "[":
                self._header(line)
            else:
                path = self._resolve((*self.table, *self._key()))
                self.lines.setdefault(path, line)
                self.at += 1  # the equals sign, behind which `_key` stops
                self._skip_value()
        return self.lines

    def _header(self, line: int) -> None:
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        path = self._resolve(self._key())
        self.at += 2 if is_array else 1
        if is_array:
            number = self.counts[path] = self.counts.get(path, -1) + 1
            path = (*path, number)
        self.table = path
        self.lines.setdefault(path, line)

    def _resolve(self, keys: Path) -> Path:
        """With the number of the last element behind each prefix that is an array of tables."""
        path: Path = ()
        for number, key in enumerate(keys):
            path = (*path, key)
            following = keys[number + 1] if number + 1 < len(keys) else None
            if path in self.counts and following is not None and not isinstance(following, int):
                path = (*path, self.counts[path])
        return path

    def _key(self) -> Path:
        """The parts of a key, up to the equals sign or the bracket behind it."""
        parts: list[str] = []
        while True:
            self._skip_spaces()
            first = self.text[self.at]
            if first in "=]":
                return tuple(parts)
            if first == ".":
                self.at += 1
            elif first in "\"'":
                begin = self.at + 1
                self._skip_string()
                part = self.text[begin : self.at - 1]
                parts.append(_unescaped(part) if first == '"' else part)
            else:
                begin = self.at
                while self.text[self.at] not in " \t.=]":
                    self.at += 1
                parts.append(self.text[begin : self.at])

    def _skip_value(self) -> None:
        depth = 0
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in "\"'":
                self._skip_string()
                continue
            if character == "#":
                self._skip_comment()
                continue
            if character == "\n" and not depth:
                return
            depth += (character in "[{") - (character in "]}")
            self.at += 1

    def _skip_string(self) -> None:
        quote = self.text[self.at]
        if self.text.startswith(quote * 3, self.at):
            self.at += 3
            while not self.text.startswith(quote * 3, self.at):
                self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
            self.at += 3
            while self.text.startswith(quote, self.at):  # up to two more belong to the string
                self.at += 1
            return
        self.at += 1
        while self.text[self.at] != quote:
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += 1

    def _skip_comment(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def _skip_spaces(self) -> None:
        while self.text[self.at] in " \t":
            self.at += 1

    def _skip_blank(self) -> bool:
        """To the next statement; False at the end."""
        while self.at < len(self.text):
            if self.text[self.at] == "#":
                self._skip_comment()
            elif self.text[self.at] in " \t\n":
                self.at += 1
            else:
                return True
        return False


def _unescaped(part: str) -> str:
    if "\\" not in part:
        return part
    import tomllib

    value: str = tomllib.loads(f'x = "{part}"')["x"]
    return value
