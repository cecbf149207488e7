"""What is done with a mouse, as events."""

from __future__ import annotations

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.devices.ps2.mouse import BACK, EVENT, FORWARD, LEFT, MIDDLE, RELEASED, RIGHT
from kvmbox.host.console import mouse_events, us_keyboard

Event = tuple[int, int, int, int]


def events(data: bytes) -> list[Event]:
    """By event: the button, and what counts to the right, up, and towards the user."""
    return [(change, dx, dy, dz) for _, change, dx, dy, dz in EVENT.iter_unpack(data)]


def test_refusal_is_one_line_whatever_was_asked_for() -> None:
    for act in (mouse_events.acted, us_keyboard.chord):
        with pytest.raises(UsageError) as caught:
            act("jump\n\x1b[2J")
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("move 10 -5", [(0, 10, 5, 0)]),
        ("move 0 0", []),
        ("move 300 -700", [(0, 255, 255, 0), (0, 45, 255, 0), (0, 0, 190, 0)]),
        ("move -256 +1", [(0, -255, -1, 0), (0, -1, 0, 0)]),
        ("press left", [(LEFT, 0, 0, 0)]),
        ("release RIGHT", [(RIGHT | RELEASED, 0, 0, 0)]),
        ("click middle,wheel 1", [(MIDDLE, 0, 0, 0), (MIDDLE | RELEASED, 0, 0, 0), (0, 0, 0, -1)]),
        ("wheel -9", [(0, 0, 0, 7), (0, 0, 0, 2)]),
        ("press back, press forward", [(BACK, 0, 0, 0), (FORWARD, 0, 0, 0)]),
    ],
)
def test_text_is_done(text: str, made: list[Event]) -> None:
    assert events(mouse_events.acted(text)) == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is nothing that a mouse does"),
        ("move 1", "'move 1' is nothing"),
        ("move 1 x", "'move 1 x' is nothing"),
        ("move 1 2,", "'' is nothing"),
        ("click", "'click' is nothing"),
        ("click fire", "no button 'fire'"),
        ("move 40000 0", "moves 32767 counts at most"),
        ("wheel 1001", "turns 1000 notches at most"),
        ("move \u0661 2", "is nothing"),
    ],
)
def test_text_that_says_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mouse_events.acted(text)


def test_move_at_once_is_one_event() -> None:
    assert events(mouse_events.moved(1000, -32767, at_once=True)) == [(0, 1000, 32767, 0)]


def test_events_come_out_of_their_sequences_as_they_were() -> None:
    done = mouse_events.acted("move -300 7, click forward, wheel 4") + mouse_events.moved(
        -32767, 32767, at_once=True
    )
    found = [
        mouse_events.event_of(one) for one in mouse_events.SEQUENCE.finditer(mouse_events.sequences(done))
    ]
    assert b"".join(event or b"" for event in found) == done
