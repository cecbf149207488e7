"""What two ports print is shown once: what that means, byte by byte, and that nothing is lost by it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.host.console.duplicate_output import HISTORY_LINES, LINE_LIMIT, PATIENCE_TICKS, MirroredOutput

A, B = "COM1", "debugcon"


class Screen:
    """A mirrored output, and all that it has shown."""

    def __init__(self) -> None:
        self.shown = b""
        self.output = MirroredOutput(self._append, (A, B))
        self._inputs = {name: self.output.input(name) for name in (A, B)}

    def _append(self, data: bytes) -> None:
        assert data
        self.shown += data

    def print(self, *pieces: tuple[str, bytes]) -> bytes:
        for name, data in pieces:
            self._inputs[name](data)
        return self.shown


def each_byte_to_both(text: bytes, first: str = A, second: str = B) -> list[tuple[str, bytes]]:
    return [(name, text[i : i + 1]) for i in range(len(text)) for name in (first, second)]


@pytest.mark.parametrize("name", [A, B])
def test_what_one_port_prints_alone_is_shown_byte_by_byte(name: str) -> None:
    screen = Screen()
    text = b"\nlogin: root\r\n\r\n\0\xff\rno end"
    for count in range(1, len(text) + 1):
        assert screen.print((name, text[count - 1 : count])) == text[:count]
    assert screen.output.withheld == {A: 0, B: 0}


@pytest.mark.parametrize(("first", "second"), [(A, B), (B, A)])
@pytest.mark.parametrize("text", [b"hello\n", b"hello\nworld\n", b"\n\n", b"a\r\nb\r\n", b"login: "])
def test_line_written_to_both_is_shown_once_and_at_once(first: str, second: str, text: bytes) -> None:
    whole, bytewise = Screen(), Screen()

    assert whole.print((first, text)) == text
    assert whole.print((second, text)) == text
    assert bytewise.print(*each_byte_to_both(text, first, second)) == text
    for screen in (whole, bytewise):
        screen.output.finish()
        assert screen.shown == text
        assert screen.output.withheld == {first: 0, second: len(text)}


def test_line_ends_of_two_kinds_are_alike_in_any_order() -> None:
    for texts in ((b"a\r\n", b"a\n"), (b"a\n", b"a\r\n")):
        assert Screen().print((A, texts[0]), (B, texts[1])) == texts[0]
    # putc of a kernel: the byte to the debug console, a CR before LF to the UART, then the byte.
    pieces = [(B, b"a"), (A, b"a"), (B, b"\n"), (A, b"\r"), (A, b"\n"), (B, b"x"), (A, b"x")]
    assert Screen().print(*pieces) == b"a\nx"
    pieces = [(A, b"a"), (B, b"a"), (A, b"\r"), (A, b"\n"), (B, b"\n"), (A, b"x"), (B, b"x")]
    assert Screen().print(*pieces) == b"a\r\nx"
    pieces = [(B, b"a"), (A, b"a"), (A, b"\r"), (B, b"\n"), (A, b"\n"), (B, b"x")]
    assert Screen().print(*pieces) == b"a\nx"
    pieces = [(B, b"a"), (A, b"a"), (A, b"\r"), (A, b"\n"), (B, b"\n"), (B, b"x")]
    assert Screen().print(*pieces) == b"a\r\nx"


def test_different_lines_are_all_shown_in_order() -> None:
    assert Screen().print((A, b"one\n"), (B, b"two\n"), (A, b"three\n"), (B, b"four\n")) == (
        b"one\ntwo\nthree\nfour\n"
    )


def test_line_that_only_begins_like_another_is_shown_whole() -> None:
    screen = Screen()
    assert screen.print((A, b"hello\n"), (B, b"hel")) == b"hello\n"
    assert screen.print((B, b"p")) == b"hello\nhelp"
    assert screen.print((B, b"\n")) == b"hello\nhelp\n"
    assert Screen().print((A, b"ready"), (B, b"read error\n")) == b"readyread error\n"
    assert Screen().print((A, b"hello\n"), (B, b"hello\rworld\n")) == b"hello\nhello\rworld\n"
    assert screen.output.withheld == {A: 0, B: 0}


def test_shown_line_stands_for_one_line_only() -> None:
    assert Screen().print((A, b"tick\n"), (B, b"tick\n"), (B, b"tick\n")) == b"tick\ntick\n"
    assert Screen().print((A, b"tick\n"), (A, b"tick\n"), (B, b"tick\n")) == b"tick\ntick\n"


def test_lines_that_one_port_alone_has_do_not_disturb_those_of_both() -> None:
    screen = Screen()
    screen.print((A, b"early\n"), (A, b"same\n"), (B, b"same\n"), (B, b"own\n"), (A, b"end\n"), (B, b"end\n"))
    assert screen.shown == b"early\nsame\nown\nend\n"


def test_line_without_text_is_not_taken_for_an_old_one() -> None:
    assert Screen().print((A, b"title\n\n"), (B, b"\n")) == b"title\n\n\n"
    assert Screen().print((A, b"title\n\n"), (B, b"title\n\n")) == b"title\n\n"


def test_lead_may_change_within_a_line() -> None:
    pieces = [(A, b"login: "), (B, b"login: root"), (A, b"root"), (A, b"\n"), (B, b"\n")]
    assert Screen().print(*pieces) == b"login: root\n"


def test_prompt_that_begins_like_an_old_line_appears_after_two_ticks() -> None:
    screen = Screen()
    screen.print((B, b"> run\n"), (A, b"> "))
    for _ in range(PATIENCE_TICKS):
        assert screen.output.tick()
        assert screen.shown == b"> run\n"
    assert not screen.output.tick()
    assert screen.shown == b"> run\n> "
    assert screen.print((A, b"run\n")) == b"> run\n> run\n"


def test_progress_keeps_a_slow_mirror_withheld() -> None:
    screen = Screen()
    screen.print((A, b"slow\n"))
    for byte in (b"s", b"l", b"o", b"w", b"\n"):
        screen.print((B, byte))
        for _ in range(PATIENCE_TICKS):
            screen.output.tick()
    assert screen.shown == b"slow\n"


def test_open_line_of_both_stays_shown_once_however_long_it_is_open() -> None:
    screen = Screen()
    screen.print((A, b"login: "), (B, b"login: "))
    for _ in range(10 * PATIENCE_TICKS):
        screen.output.tick()
    screen.output.finish()
    assert screen.shown == b"login: "


def test_beginning_of_a_line_that_was_cut_off_is_shown_at_the_end() -> None:
    screen = Screen()
    screen.print((A, b"booting\n"), (B, b"boot"))
    screen.output.finish()
    assert screen.shown == b"booting\nboot"
    screen.output.finish()
    assert screen.shown == b"booting\nboot"


def test_lines_that_are_withheld_for_each_other_both_appear() -> None:
    screen = Screen()
    screen.print((A, b"x1\n"), (B, b"y1\n"), (A, b"y"), (B, b"x"))
    assert screen.shown == b"x1\ny1\n"
    screen.output.finish()
    assert sorted(screen.shown[6:]) == sorted(b"xy")


def test_line_that_both_withhold_for_old_ones_is_shown_whole_when_it_is_another() -> None:
    screen = Screen()
    screen.print((A, b"ab1\n"), (B, b"ab2\n"), (A, b"ab"), (B, b"ab"), (A, b"x\n"))
    assert screen.shown == b"ab1\nab2\nabx\n"
    assert screen.print((B, b"1\n")) == b"ab1\nab2\nabx\n"


def test_line_longer_than_the_limit_is_shown_and_not_compared() -> None:
    line = bytes(range(32, 127)) * 12
    assert len(line) > LINE_LIMIT
    assert Screen().print((A, line + b"\n"), (B, line + b"\n")) == (line + b"\n") * 2
    open_line = Screen()
    assert open_line.print((A, line), (B, b"abc"), (A, b"\n"), (B, b"\n")) == line + b"abc\n\n"


def test_line_that_is_too_old_is_forgotten() -> None:
    screen = Screen()
    screen.print((A, b"first\n"), *((A, b"line %d\n" % i) for i in range(HISTORY_LINES)))
    before = screen.shown
    assert screen.print((B, b"first\n")) == before + b"first\n"


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B]), st.text("ab\r\n", min_size=1, max_size=6).map(str.encode)),
        max_size=12,
    )
)
def test_no_line_is_lost_and_at_most_one_of_two_is_withheld(pieces: list[tuple[str, bytes]]) -> None:
    """For each text of a line: shown at least as often as the port that printed it more often did."""
    screen = Screen()
    printed = {A: b"", B: b""}
    for name, data in pieces:
        printed[name] += data
        screen.print((name, data))
        # Whatever is not shown of a port has been shown for the other one.
        assert sum(screen.output.withheld.values()) + len(screen.shown) == sum(map(len, printed.values()))
        for one, other in ((A, B), (B, A)):
            assert screen.output.withheld[one] <= len(printed[other]) + printed[one].count(b"\r")
    screen.output.finish()
    assert sum(screen.output.withheld.values()) + len(screen.shown) == sum(map(len, printed.values()))


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B]), st.sampled_from([b"a", b"ab", b"abc", b"", b"b"])), max_size=16
    )
)
def test_whole_lines_are_shown_as_often_as_the_port_that_has_more_of_them(
    lines: list[tuple[str, bytes]],
) -> None:
    screen = Screen()
    printed = {A: Counter[bytes](), B: Counter[bytes]()}
    for name, line in lines:
        printed[name][line] += 1
        screen.print((name, line + b"\n"))
    shown = Counter(screen.shown.split(b"\n")[:-1])
    for line in printed[A] | printed[B]:
        assert max(printed[A][line], printed[B][line]) <= shown[line] <= printed[A][line] + printed[B][line]
    assert set(shown) <= set(printed[A] | printed[B])


@given(st.text("ab\n", max_size=30).map(str.encode), st.lists(st.booleans(), max_size=80))
def test_mirror_of_short_lag_is_shown_once_whoever_leads(text: bytes, order: list[bool]) -> None:
    """Both print the same text, in steps of a byte, in any order."""
    screen = Screen()
    done = {A: 0, B: 0}
    for name in (*(A if first else B for first in order), *(A for _ in text), *(B for _ in text)):
        if done[name] < len(text):
            screen.print((name, text[done[name] : done[name] + 1]))
            done[name] += 1
    screen.output.finish()
    assert screen.shown == text


def continued(screen: Screen) -> Screen:
    """Another screen, which goes on where this one is, and has shown nothing yet."""
    other = Screen()
    other.output.go_on(screen.output.lines())
    return other


@pytest.mark.parametrize("cut", range(25))
def test_continued_output_shows_exactly_what_the_first_one_would_have_shown(cut: int) -> None:
    pieces = [
        *each_byte_to_both(b"one\ntwo\n"),
        (A, b"three\nfour"),
        (B, b"three\n"),
        (B, b"four\n"),
        (A, b"\n"),
    ]
    pieces += each_byte_to_both(b"end\n", B, A)
    whole, first = Screen(), Screen()
    shown = whole.print(*pieces)
    before = first.print(*pieces[:cut])
    assert before + continued(first).print(*pieces[cut:]) == shown


def test_output_with_other_ports_does_not_go_on() -> None:
    screen = Screen()
    screen.print((A, b"one\n"))
    other = MirroredOutput(lambda data: None, (B, "BIOS"))
    other.go_on(screen.output.lines())
    assert other.lines() == MirroredOutput(lambda data: None, (B, "BIOS")).lines()
