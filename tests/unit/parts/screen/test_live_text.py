"""Text that is drawn over itself on a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from kvmbox.host.console.overlay_output import DrawnStream
from kvmbox.parts.screen.live_text import LiveText
from kvmbox.parts.screen.pixels import USUAL_LINES
from tests.support.patience import patience

CUT, WRAP, REST, ERASE = "\x1b[?7l", "\x1b[?7h", "\x1b[K", "\x1b[J"
SAVE, BACK = f"{ERASE}\x1b7{CUT}", f"{WRAP}\x1b8"


def room(lines: int) -> str:
    return "\x1bD" * lines + f"\x1b[{lines}A"


def test_picture_begins_where_the_cursor_is_and_leaves_it_there() -> None:
    frame = LiveText(24).frame(["one", "two"], at_line_start=True)
    assert frame == f"{room(1)}{SAVE}one{REST}\ntwo{REST}{BACK}".encode()
    frame = LiveText(24).frame(["☺"], at_line_start=True)
    assert frame == f"{SAVE}☺{REST}{BACK}".encode()


def test_picture_is_below_a_line_that_goes_on() -> None:
    frame = LiveText(24).frame(["one", "two"], at_line_start=False)
    assert frame == f"{room(2)}{SAVE}\none{REST}\ntwo{REST}{BACK}".encode()


def test_last_rows_are_drawn_where_there_is_little_room_and_all_at_the_end() -> None:
    live = LiveText(3)
    rows = ["one", "two", "three"]
    assert live.frame(rows, at_line_start=True) == f"{room(1)}{SAVE}two{REST}\nthree{REST}{BACK}".encode()
    for at_line_start, begin in ((True, ""), (False, "\n")):
        last = live.frame(rows, at_line_start=at_line_start, is_last=True)
        assert last == f"{ERASE}{begin}one\ntwo\nthree\n".encode()


def test_blank_screen_erases_what_was_drawn() -> None:
    live = LiveText(24)
    assert not live.drawn
    live.frame(["one"], at_line_start=True)
    assert live.drawn == ["one"]
    assert live.frame([], at_line_start=True) == ERASE.encode()
    assert not live.drawn


def test_terminal_without_a_size_has_the_usual_one() -> None:
    assert LiveText(0).frame(["x"] * 100, at_line_start=True).count(b"x") == USUAL_LINES - 1


def test_message_hides_what_was_drawn() -> None:
    live = LiveText(24)
    said: list[str] = []
    live.frame(["one"], at_line_start=True)
    assert not live.is_hidden
    live.beside(said.append)("restarted")
    assert said == ["restarted"]
    assert live.is_hidden


# --- The stream that is drawn on --------------------------------------------------------------------------


@pytest.fixture
def drawn() -> Iterator[tuple[DrawnStream, Callable[[], bytes]]]:
    source, sink = os.pipe()
    stream = DrawnStream("terminal", sink, failed=lambda error: None)

    def written() -> bytes:
        stream.start()
        stream.flush(5.0)
        os.close(sink)
        return os.read(source, 1 << 16)

    yield stream, written
    os.close(source)


def test_output_erases_the_picture_once_and_says_where_the_next_one_begins(
    drawn: tuple[DrawnStream, Callable[[], bytes]],
) -> None:
    stream, written = drawn
    begins: list[bool] = []

    def frame(at_line_start: bool) -> bytes:
        begins.append(at_line_start)
        return b"<>"

    stream.append(b"a")
    stream.draw(frame)
    assert stream.is_drawn
    stream.append(b"b\n")
    assert not stream.is_drawn
    stream.append(b"c\n")
    stream.draw(frame)
    assert written() == b"a<>\x1b[Jb\nc\n<>"
    assert begins == [False, True]


def test_what_a_frame_is_erased_with_is_its_own(drawn: tuple[DrawnStream, Callable[[], bytes]]) -> None:
    stream, written = drawn
    stream.draw(lambda _at_line_start: b"<1>", b"<erase>")
    stream.append(b"a")
    stream.draw(lambda _at_line_start: b"<2>")
    stream.append(b"b")
    assert written() == b"<1><erase>a<2>\x1b[Jb"


def test_stream_is_behind_until_the_terminal_has_taken_the_frame() -> None:
    source, sink = os.pipe()
    stream = DrawnStream("terminal", sink, failed=lambda error: None)
    assert not stream.is_behind
    stream.draw(lambda _at_line_start: bytes(200_000))
    assert stream.is_behind
    taken = 0
    while taken < 200_000:
        taken += len(os.read(source, 1 << 16))
    assert stream.flush(patience(30)) == 0
    assert not stream.is_behind
    os.close(source)
    os.close(sink)
