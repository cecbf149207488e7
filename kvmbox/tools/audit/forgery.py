"""What a process that is taken over says to the VMM: effects that it may have, and one that it may not."""

from __future__ import annotations

from kvmbox.base.value_classes import Value
from kvmbox.contract.model import Effect
from kvmbox.wire.effect_texts import TEXTS
from kvmbox.wire.effects import encode_effects

Said = tuple[int, Effect]
"""An effect, with the index of the device that has it."""


class Forgery(Value):
    """What a process of `device_type` answers: the effects of one reply after the other. The last effect is
    the one that it may not have. `tries` says in the report what the process is after.
    """

    tries: str
    device_type: str
    replies: tuple[tuple[Said, ...], ...]

    @property
    def encoded(self) -> str:
        """For the payload: of each reply the number of effects and their bytes, in hexadecimal digits."""
        return ",".join((bytes((len(said),)) + encode_effects(list(said))).hex() for said in self.replies)

    @property
    def text(self) -> str:
        """The last effect, for people."""
        effect = self.replies[-1][-1][1]
        return TEXTS[type(effect)](effect, str)
