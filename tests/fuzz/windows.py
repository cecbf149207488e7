"""Hostile replies of a disk.

A process that is taken over opens windows and flushes as it likes, while its guest reads and writes at the
data port, and the transfer thread does its errands at any moment. What must hold: a frame is used as it was
granted, or refused; the store is read and written within its size, and by no more than the grant at a time;
and what the guest reads is a piece of the medium, or what the model itself has answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmbox.base.errors import ProtocolError
from kvmbox.contract.bulk_data import QUIET_END, QUIET_START, RISES, Flush, Window
from kvmbox.contract.model import Effect
from kvmbox.remote.published.data_window import WindowState
from kvmbox.wire import protocol
from kvmbox.wire.protocol import request_word
from tests.support.dice import Dice
from tests.support.halves import built_halves
from tests.support.window_disk import OWN, SECTOR
from tests.support.window_rig import CONTENT, PORT, WindowRig

MOST: Final = 1024
"""What the grant has as `max_bytes`."""
LIFE: Final = 60
"""How many steps a process has, if it is not refused before."""
SIZES: Final = (0, 1, 2, 3, 4, 6, SECTOR, SECTOR, MOST)
TOO_LARGE: Final = (MOST + 1, 1 << 40, (1 << 64) - 1)
EFFECTS: Final = (*(0,) * 40, *(1,) * 40, 2, 2, 3, 3, 20)
"""How many effects a frame has: each may cause another frame."""
PLACES: Final = (0, SECTOR, len(CONTENT) - SECTOR, len(CONTENT) - 1, len(CONTENT), 1 << 63, (1 << 64) - 1)
WAYS: Final = (0, 1, 1, 0, 1 | RISES, 1 | QUIET_START, 1 | QUIET_END, 1 | RISES | QUIET_START | QUIET_END)
OWN_WORDS: Final = (OWN.to_bytes(4, "little"), OWN.to_bytes(4, "little")[:2])


class Fault(AssertionError):
    """What must not happen."""


class Campaign:
    """Process after process."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self._halves = built_halves()
        self.frames = 0
        self.moved = 0
        self.refused = 0

    def effect(self) -> Effect:
        """What a process asks for, mostly something that it may."""
        dice = self.dice
        resource = 0 if dice.random() < 0.99 else dice.choice((1, 2, 255))
        if dice.random() < 0.1:
            return Flush(dice.randrange(4), resource)
        place = dice.choice(PLACES) if dice.random() < 0.2 else dice.randrange(len(CONTENT))
        way = dice.random()
        size = dice.choice(TOO_LARGE if way < 0.01 else SIZES) if way < 0.5 else dice.randrange(MOST)
        return Window(dice.randrange(4), resource, place, size, dice.some(WAYS))

    def effects(self) -> list[Effect]:
        """Those of one frame."""
        self.frames += 1
        return [self.effect() for _ in range(self.dice.choice(EFFECTS))]

    def life(self) -> None:
        """One process, until it is refused. Raises Fault."""
        dice = self.dice
        rig = WindowRig(dice.choice(self._halves))
        rig.model.take_effects = self.effects  # type: ignore[method-assign]
        try:
            for _ in range(LIFE):
                if dice.ended:
                    break
                self._step(rig)
        except ProtocolError as error:
            self.refused += 1
            if not any(word in str(error) for word in ("not granted", "follow-ups")):
                raise Fault(f"refused for another reason: {error}") from error
        self.moved += len(rig.store.calls)
        if len(rig.store.data) != len(CONTENT):
            raise Fault(f"the disk has {len(rig.store.data)} bytes")
        for call in rig.store.calls:
            verb, _, place = call.partition(" ")
            if verb != "flush":
                offset, size = map(int, place.split("+"))
                if size > MOST or offset + size > len(CONTENT):
                    raise Fault(call)

    def _step(self, rig: WindowRig) -> None:
        dice = self.dice
        size, count = dice.choice((2, 4)), dice.randrange(1, 400)
        match dice.randrange(9):
            case 6:
                self._access(rig, size)
            case 7:
                rig.store.fails, rig.host.is_full = dice.some((0, 0, 5)), dice.byte() < 40
            case 8:
                self._restore(rig)
            case 0 | 1:
                data = rig.ports.read_string(PORT, size, count)
                if len(data) != size * count:
                    raise Fault(f"{len(data)} bytes of {count} reads of {size}")
                if rig.store.data == CONTENT:
                    self._check(data, size)
            case 2:
                rig.ports.write_string(PORT, size, dice.randbytes(size * count))
            case 3:
                rig.store.waits, rig.store.writes_now = dice.random() < 0.5, dice.random() < 0.5
            case 4:
                rig.ports.write(PORT + dice.randrange(1, 4), 1, dice.getrandbits(8))
            case 5 if rig.host.errands:
                rig.do_errand()

    def _access(self, rig: WindowRig, size: int) -> None:
        """One access, which may carry a write along."""
        dice = self.dice
        port = PORT + dice.some((0, 0, 0, 2))
        match dice.byte() % 4:
            case 0:
                rig.ports.write(port, size, dice.getrandbits(8 * size))
                return
            case 1 if port != PORT:
                rig.ports.write_string(port, 2, bytes(4))
                rig.ports.read_string(port, 2, 2)
                return
            case 2 if rig.proxy.window is not None:  # a read that carries a write of another register
                word = request_word(protocol.READ, 0, size)
                posted = rig.proxy.with_index(word, dice.randrange(1, 4), dice.byte())
                value = rig.proxy.window.access(posted[0], port - PORT, posted[1], (1 << 8 * size) - 1)
                self._look(rig, port, value.to_bytes(size, "little"))
                return
        value = rig.ports.read(port, 2 if port != PORT else size)
        self._look(rig, port, value.to_bytes(size, "little"))

    def _look(self, rig: WindowRig, port: int, data: bytes) -> None:
        if rig.store.data == CONTENT and port == PORT:
            self._check(data, len(data))

    def _restore(self, rig: WindowRig) -> None:
        """Be as its state says, or as one that is damaged, or refuse that."""
        state, dice = rig.window.state(), self.dice
        if state is None or rig.host.errands:
            return
        fields = state.as_dict()
        name = dice.some(("offset", "size", "use", "position", "data", "tag"))
        if dice.byte() & 1:
            fields[name] = dice.randbytes(9) if name == "data" else dice.some((0, 1, 2, 3, 2000, 1 << 40))
        try:
            rig.window.restore(0, rig.medium, WindowState(**fields))
        except ValueError:
            if fields == state.as_dict():
                raise
            rig.window.restore(0, rig.medium, state)

    @staticmethod
    def _check(data: bytes, size: int) -> None:
        for start in range(0, len(data), size):
            word = data[start : start + size]
            if word not in OWN_WORDS and word not in CONTENT:
                raise Fault(f"the guest has read {word.hex()}")


def lives(dice: Dice) -> None:
    """One process after the other. Raises Fault."""
    campaign = Campaign(dice)
    while not dice.ended:
        campaign.life()


TARGETS: Final[dict[str, Callable[[Dice], None]]] = {"windows": lives}
