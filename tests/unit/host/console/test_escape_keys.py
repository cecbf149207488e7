"""The escape character, and the commands behind it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.host.console.escape_keys import EscapeParser, Keys

CTRL_A = b"\x01"


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"", Keys(b"")),
        (b"hello", Keys(b"hello")),
        (b"xXhH\x00\xff", Keys(b"xXhH\x00\xff")),
        (b"ab\x01x", Keys(b"ab", leave=True)),
        (b"ab\x01X", Keys(b"ab", leave=True)),
        (b"a\x01hb", Keys(b"ab", help_wanted=True)),
        (b"a\x01Hb", Keys(b"ab", help_wanted=True)),
        (b"a\x01\x01b", Keys(b"a\x01b")),
        (b"\x01\x01\x01\x01", Keys(b"\x01\x01")),
        (b"a\x01qb", Keys(b"ab")),  # no command: neither key is the guest's
        (b"\x01ha\x01xlost", Keys(b"a", leave=True, help_wanted=True)),
        (b"\x01\x01x", Keys(b"\x01x")),
        (b"a\x01cb", Keys(b"a", monitor=b"b")),
        (b"a\x01Cb\x01cd", Keys(b"ad", monitor=b"b")),
        (b"\x01c\x01\x01", Keys(b"", monitor=b"\x01")),
        (b"\x01cq\x01x", Keys(b"", leave=True)),
        (b"a\x01", Keys(b"a")),
    ],
)
def test_escape_parser_takes_commands_out(typed: bytes, keys: Keys) -> None:
    assert EscapeParser().feed(typed) == keys


def test_escape_parser_command_across_pieces_is_one_command() -> None:
    parser = EscapeParser()
    assert parser.feed(b"a" + CTRL_A) == Keys(b"a")
    assert parser.feed(b"") == Keys(b"")
    assert parser.feed(b"x") == Keys(b"", leave=True)


def test_escape_parser_goes_on_after_a_command() -> None:
    parser = EscapeParser()
    assert parser.feed(CTRL_A + b"x") == Keys(b"", leave=True)
    assert parser.feed(b"x") == Keys(b"x")


KEYS = st.lists(st.sampled_from([b"\x01", b"h", b"q", b"\x01", b"z", b"\x00"])).map(b"".join)


@given(KEYS, st.data())
def test_escape_parser_pieces_mean_what_the_whole_means(typed: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(typed)), max_size=6)))
    whole = EscapeParser().feed(typed)
    parser = EscapeParser()
    pieces = [parser.feed(typed[a:b]) for a, b in zip([0, *cuts], [*cuts, len(typed)], strict=True)]
    assert b"".join(piece.data for piece in pieces) == whole.data
    assert any(piece.help_wanted for piece in pieces) == whole.help_wanted
    assert not whole.leave


@given(st.binary())
def test_escape_parser_without_the_escape_character_passes_everything(typed: bytes) -> None:
    plain = typed.replace(CTRL_A, b"")
    assert EscapeParser().feed(plain) == Keys(plain)


class Monitor:
    """Leaves when it hears an `l`."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, bool]] = []

    def typed(self, data: bytes, *, stays: bool) -> bool:
        self.heard.append((data, stays))
        return stays and b"l" not in data


def test_escape_parser_gives_the_monitor_what_is_its() -> None:
    parser, monitor = EscapeParser(), Monitor()
    parser.summon = lambda: monitor
    for typed in (b"\x01cone", b"two", b"x\x01c", b"guest", b"\x01cl", b"guest"):
        keys = parser.feed(typed)
        if keys.monitor is None:
            assert keys.data == b"guest"
        else:
            parser.tell_monitor(keys.monitor)
    assert monitor.heard == [(b"one", True), (b"two", True), (b"x", False), (b"l", True)]
