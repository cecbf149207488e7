"""The VMM's side of device processes, given hostile replies, broken processes and damaged snapshots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.fuzz.asking import AskingTarget
from tests.fuzz.coalesced import RingTarget
from tests.fuzz.frames import Liar
from tests.fuzz.lives import LivesTarget, LossesTarget, SnapshotTarget
from tests.fuzz.plants import SOUND, Parts
from tests.fuzz.targets import Keeper, RealTarget, SharedTarget, StreamTarget
from tests.support.dice import Dice

MADE: Final[dict[str, Callable[[Parts], Any]]] = {
    "stream": StreamTarget,
    "shared": SharedTarget,
    "lives": LivesTarget,
    "losses": LossesTarget,
    "model-snapshots": SnapshotTarget,
    "coalesced": RingTarget,
    "socketpair": lambda parts: RealTarget(parts, "socketpair"),
    "pipe": lambda parts: RealTarget(parts, "pipe"),
    "shm": lambda parts: RealTarget(parts, "shm"),
    "recorded": lambda parts: StreamTarget(parts, record=max, last_sequence=0xFFFF_FFFD),
    "kept": lambda parts: StreamTarget(parts, survival=Keeper()),
    "asking": AskingTarget,
}
"""What makes each target, of its parts."""

WAYS: Final = {"stream": ("stream",) * 6 + ("recorded", "lives", "losses", "asking", "kept")}
"""What else there is to one, chosen by the input."""


def stepping(name: str, parts: Parts = SOUND) -> Callable[[Dice], None]:
    """The target of that name: step after step, until the input has ended."""

    def run(dice: Dice) -> None:
        made = MADE[dice.some(WAYS[name]) if name in WAYS else name](parts)
        liar = Liar(dice)
        try:
            while not dice.ended:
                made.step(liar)
        finally:
            made.close()

    return run


TARGETS: Final = {name: stepping(name) for name in MADE}
