"""Text that is drawn over itself on a terminal."""

from __future__ import annotations

from kvmbox.parts.screen.live import USUAL_LINES, LiveText

CUT, WRAP, REST, BELOW = "\x1b[?7l", "\x1b[?7h", "\x1b[K\n", "\x1b[J"


def test_first_picture_is_drawn_where_the_cursor_is() -> None:
    assert LiveText(24).frame(["one", "two"]) == f"\r{CUT}one{REST}two{REST}{WRAP}{BELOW}".encode()


def test_next_picture_is_drawn_over_the_last_one() -> None:
    live = LiveText(24)
    live.frame(["one", "two"])
    assert live.frame(["☺"]) == f"\r\x1b[2A{CUT}☺{REST}{WRAP}{BELOW}".encode()
    assert live.frame([]) == f"\r\x1b[1A{CUT}{WRAP}{BELOW}".encode()
    assert live.frame(["new"]).startswith(f"\r{CUT}".encode())


def test_last_rows_are_drawn_where_there_is_little_room_and_all_at_the_end() -> None:
    live = LiveText(3)
    rows = ["one", "two", "three"]
    assert live.frame(rows) == f"\r{CUT}two{REST}three{REST}{WRAP}{BELOW}".encode()
    assert live.frame(rows, is_last=True) == f"\r\x1b[2Aone{REST}two{REST}three{REST}{BELOW}".encode()


def test_terminal_without_a_size_has_the_usual_one() -> None:
    assert LiveText(0).frame(["x"] * 100).count(b"x") == USUAL_LINES - 1


def test_picture_after_a_message_is_below_it() -> None:
    live = LiveText(24)
    said: list[str] = []
    live.frame(["one"])
    live.beside(said.append)("restarted")
    assert said == ["restarted"]
    assert live.frame(["two"]).startswith(f"\r{CUT}two".encode())
