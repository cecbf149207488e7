"""Where keys stand: hand-written documents, and the same answer as the parser about what there is."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kvmbox.tools.smoke.suite.toml_lines import key_lines

DOCUMENT = '''\
# a comment = with an equals sign
top = 1

[defaults]   # [not] = a header
timeout = 10
"quoted key" = { inline = "x", other = [1, 2] }
expect = [
  "a ] bracket",   # and a comment with " in it
  'single [',
]

[[test]]
name = """
several
lines = 3 \\"""
"""
image = 'a#b'
a.b.c = 1

[[test.dialogue]]
when = "x"
[[test.dialogue]]
when = "y"

[[ test ]]
name = ''\'it's''\'
[test.check]
"/a/b=c" = "Y"
'''


def test_lines_of_every_kind_of_statement() -> None:
    assert key_lines(DOCUMENT) == {
        ("top",): 2,
        ("defaults",): 4,
        ("defaults", "timeout"): 5,
        ("defaults", "quoted key"): 6,
        ("defaults", "quoted key", "inline"): 6,
        ("defaults", "quoted key", "other"): 6,
        ("defaults", "expect"): 7,
        ("test", 0): 12,
        ("test", 0, "name"): 13,
        ("test", 0, "image"): 17,
        ("test", 0, "a"): 18,
        ("test", 0, "a", "b"): 18,
        ("test", 0, "a", "b", "c"): 18,
        ("test", 0, "dialogue", 0): 20,
        ("test", 0, "dialogue", 0, "when"): 21,
        ("test", 0, "dialogue", 1): 22,
        ("test", 0, "dialogue", 1, "when"): 23,
        ("test", 1): 25,
        ("test", 1, "name"): 26,
        ("test", 1, "check"): 27,
        ("test", 1, "check", "/a/b=c"): 28,
    }
    tomllib.loads(DOCUMENT)


def test_windows_line_ends_count_once() -> None:
    assert key_lines("a = 1\r\n\r\nb = 2\r\n") == {("a",): 1, ("b",): 3}


def test_quotes_before_the_end_of_a_long_string_belong_to_it() -> None:
    assert key_lines('a = """x""""\nb = 1 # "\nc = 2') == {("a",): 1, ("b",): 2, ("c",): 3}


def test_text_without_a_last_line_end() -> None:
    assert key_lines("a = 1 # x") == {("a",): 1}
    assert key_lines('a = """x"""""\nb = \'\'') == {("a",): 1, ("b",): 2}


KEYS = st.one_of(
    st.from_regex(r"[a-zA-Z0-9_-]{1,5}", fullmatch=True),
    st.text("ab.=]#[ \"'\\\té", min_size=1, max_size=4).map(
        lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'
    ),
)
VALUES = st.sampled_from(
    [
        "1",
        "[1, 2]",
        '["]", \'#\', """"""]',
        "{ a = 1, b = ']' }",
        '"""\n = [x]\n"""',
        "'''\n[[y]]\n'''",
        '"\\""',
        "true # x = [",
        "[\n1, # ]\n2 ]",
        "1979-05-27T07:32:00Z",
    ]
)


@given(st.lists(st.tuples(st.booleans(), st.lists(KEYS, min_size=1, max_size=3), VALUES), max_size=8))
def test_keys_are_those_that_the_parser_finds(
    statements: list[tuple[bool, list[str], str]],
) -> None:
    lines = []
    at: dict[int, int] = {}
    for number, (is_test, keys, value) in enumerate(statements):
        if is_test:
            lines.append("[[test]]")
        at[len("\n".join(lines).split("\n")) + (1 if lines else 0)] = number
        lines.append(f"{' . '.join(keys)} = {value}")
    text = "\n".join(lines)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # two keys of one name, or a key of a value that is no table
        return
    found = key_lines(text)
    for path, line in found.items():
        inside: Any = content
        for part in path:
            inside = inside[part]  # a path that is not there raises
        assert 1 <= line <= text.count("\n") + 1
    assert set(at) == {line for path, line in found.items() if not isinstance(path[-1], int)}
