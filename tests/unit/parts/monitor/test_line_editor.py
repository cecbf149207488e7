"""What is typed for the monitor, put together to lines."""

from __future__ import annotations

import pytest

from kvmbox.parts.monitor.line_editor import MOST_TYPED, PROMPT, LineEditor


@pytest.mark.parametrize(
    ("typed", "lines", "shown"),
    [
        (b"time\r", ["time"], "time\n"),
        (b"a\nb\n", ["a", "b"], "a\nb\n"),
        (b"tymo\x7f\x7f\x7fime\r", ["time"], "tymo\b \b\b \b\b \bime\n"),
        (b"\x7f\x08x\r", ["x"], "x\n"),
        (b"never\x03time\r", ["time"], f"never\n{PROMPT}time\n"),
        (b"a\x04b\r", ["ab"], "ab\n"),
        (b"\x1b[A\xff\0\r", ["[A"], "[A\n"),
    ],
)
def test_lines_are_put_together(typed: bytes, lines: list[str], shown: str) -> None:
    assert LineEditor().feed(typed) == (lines, shown, False)


def test_ctrl_d_leaves_from_an_empty_line() -> None:
    editor = LineEditor()
    assert editor.feed(b"a\r\x04lost") == (["a"], "a\n", True)
    assert editor.feed(b"b\r") == (["b"], "b\n", False)


def test_line_is_bounded() -> None:
    (line,) = LineEditor().feed(b"x" * (2 * MOST_TYPED) + b"\r")[0]
    assert len(line) == MOST_TYPED
