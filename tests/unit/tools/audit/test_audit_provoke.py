"""What the VMM's channel is found guilty of, and what not, when a hostile process answers it."""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.base.errors import ProtocolError
from kvmbox.remote.channel.connection import Channel
from kvmbox.tools.audit.attacks.requests import BAD, GOOD
from kvmbox.tools.audit.provoke import ask
from tests.support.links import Nowhere


class Scripted(Channel):
    """A channel whose answers are given by the number of the request."""

    def __init__(self, answer: Callable[[int], int]) -> None:
        super().__init__("audit", Nowhere(), [], now=lambda: 0)
        self._answer_of = answer
        self._count = 0

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        self._count += 1
        return self._answer_of(self._count)


def refuse(_number: int) -> int:
    raise ProtocolError("audit", "broke the protocol: nonsense")


def test_channel_that_lets_a_value_through_that_may_not_be_is_caught() -> None:
    caught, words = ask(Scripted(lambda number: BAD if number == 5 else GOOD), 10)

    assert caught
    assert f"{BAD:#x}" in words


def test_channel_that_lets_another_value_through_is_caught() -> None:
    # Within the limit, but not what the process answered.
    assert ask(Scripted(lambda _number: GOOD + 1), 10)[0]


def test_channel_that_refuses_has_held() -> None:
    caught, words = ask(Scripted(lambda number: GOOD if number == 1 else refuse(number)), 10)

    assert not caught
    assert words == "9 of 10 replies refused: it broke the protocol: nonsense"


def test_channel_whose_values_never_change_has_held_where_replies_are_honest() -> None:
    assert not ask(Scripted(lambda _number: GOOD), 10)[0]


def test_channel_that_takes_every_reply_of_a_flood_is_caught() -> None:
    assert ask(Scripted(lambda _number: GOOD), 10, honest_replies=False)[0]
