"""A process that is taken over, and asks for as much as fits into each reply, and into what follows.

Whatever it asks for, its channel grants, or breaks with one line.
"""

from __future__ import annotations

from typing import Any, Final

from kvmbox.base.errors import DeviceProcessError
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import bind
from kvmbox.wire import protocol
from kvmbox.wire.protocol import HEADER, MAX_PAYLOAD, NO_DEADLINE
from tests.fuzz.effects import KINDS, effect_bytes
from tests.fuzz.frames import Liar
from tests.fuzz.lives import random_request, send
from tests.fuzz.parsers import told
from tests.fuzz.plants import Parts
from tests.support.calling import CallingTransport
from tests.support.model_variants import VARIANTS
from tests.support.noting_host import NotingHost

ASKERS: Final = tuple(VARIANTS[name] for name in ("fw_cfg", "virtio_blk", "virtio_net", "ide", "vga_text"))
"""Devices that may ask for answers, and those of queues."""


class AskingTarget:
    """One device, and what its process says in the name of it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._channel: Channel | None = None
        self._sequence = 0

    def _begin(self, dice: Any) -> Channel:
        self._dice = dice
        self._spec = dice.some(ASKERS)
        names = {kind.__name__ for grant in self._spec.grants for kind in type(grant).__mro__}
        self._kinds = [kind for kind in KINDS if names & set(kind.grants)]
        grants = [bind(self._spec, NotingHost())]
        return self._parts.channel("fuzzed", CallingTransport(self._answer), grants, now=lambda: 1)

    def _answer(self, frame: bytes) -> bytes:
        kind, device, size, _, sequence, *_ = HEADER.unpack_from(frame)
        one, count = effect_bytes(self._dice, self._kinds), self._dice.some((0, 1, 1, 2, 5, 21))
        count = min(count, MAX_PAYLOAD // len(one)) if one else 0
        fields = (kind | protocol.REPLY, device, size, count, sequence, NO_DEADLINE, 0, 0, len(one) * count)
        return HEADER.pack(*fields) + one * count

    def step(self, liar: Liar) -> None:
        """One request."""
        dice: Any = liar.dice
        channel = self._channel = self._channel or self._begin(dice)
        self._sequence += 1
        try:
            send(channel, random_request(dice, [self._spec], self._sequence, 1), (1 << 64) - 1)
        except DeviceProcessError as error:
            told(error)
            self._channel = None

    def close(self) -> None:
        """Nothing is open."""
