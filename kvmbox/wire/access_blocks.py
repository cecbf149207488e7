"""Blocks: requests for several accesses of the guest. Pure.

A device that takes bytes only gets a wide access (INL) as one access for each byte, and a string instruction
(REP INSB) accesses one register many times. A block asks for all of them at once. The device process makes
the accesses in order, as if each were a READ or a WRITE of its own, all at the same `now`.

    kind          the accesses                                                     what the guest writes
    READ_WIDE     `size` of 1 byte, at `offset`, `offset` + 1, …
    WRITE_WIDE    the same                                                         value, lowest byte first
    READ_STRING   value, each of `size` bytes, all at `offset`
    WRITE_STRING  as many as the payload has, each of `size` bytes, all at `offset`  payload
    WRITE_LIST    `size` of 1 byte, at registers below 16: 4 bits of `offset` each   value, lowest byte first

The last one is for writes that did not exit, and for the write behind them that does.

A block may end early: behind an access with effects. Then the VMM asks for the rest with another block. So
an answer to an effect, such as guest memory, reaches the model before the next access does, and a reply has
no more effects than fit. A block ends behind an access

- of a model that may ask for an answer (`contract.model.MemoryModel`), if the access has any effect;
- that has an effect which is valid after a write only (STOP): it is always an effect of the last access made;
- with which the reply has `MOST_EFFECTS` effects, or `MOST_OUTPUT` bytes of output.

The reply has the effects of all accesses that were made. Behind them are the bytes that were read, or the
number of writes that were made (4 bytes) if that is not all. A READ_WIDE without effects needs no payload:
the bytes are in the value.
"""

from __future__ import annotations

from kvmbox.contract.model import HostOutput
from kvmbox.wire.effect_kinds import BY_CLASS
from kvmbox.wire.protocol import (
    READ,
    READ_STRING,
    READ_WIDE,
    WRITE,
    WRITE_LIST,
    WRITE_STRING,
    WRITE_WIDE,
    FrameError,
    Request,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from kvmbox.contract.model import Effect

BLOCKS: Final = frozenset((READ_WIDE, WRITE_WIDE, READ_STRING, WRITE_STRING, WRITE_LIST))
SIZES: Final = (1, 2, 4, 8)
"""Of an access, in bytes."""

MAX_WIDE: Final = 8
"""How many bytes a wide access, or a list, has at most."""

MAX_STRING: Final = 1024
"""How many bytes a string block reads or writes at most: as KVM reads ahead for one instruction."""

MOST_EFFECTS: Final = 64
MOST_OUTPUT: Final = 1024
"""With so many effects, or bytes of output, a block ends. What is left of the reply is the last access's."""

_MADE_BYTES: Final = 4


class Block:
    """The accesses of a request: `count` of `width` bytes each, `step` registers from one to the next.

    `data` is what the guest writes; a block that `reads` has none.
    """

    __slots__ = ("count", "data", "reads", "request", "step", "width")

    def __init__(self, request: Request) -> None:
        """FrameError if `request` is no block that a VMM sends."""
        kind, size, value = request.kind, request.size, request.value
        self.request = request
        self.reads = kind in (READ_WIDE, READ_STRING)
        self.data = b""
        if kind in (READ_WIDE, WRITE_WIDE, WRITE_LIST):
            self.width, self.step, self.count = 1, 1, size
            fits = 0 < size <= MAX_WIDE and not request.payload and not value >> 8 * size
            fits = fits and not (kind == WRITE_LIST and request.offset >> 4 * size)
            if not self.reads:
                self.data = value.to_bytes(MAX_WIDE, "little")[:size]
        else:
            self.width, self.step = size, 0
            self.data = request.payload
            self.count = value if self.reads else len(self.data) // (size or 1)
            length = self.count * size
            fits = size in SIZES and 0 < length <= MAX_STRING
            fits = fits and (not self.data if self.reads else len(self.data) == length and not value)
        if not fits:
            raise FrameError(f"a block of {self.count} accesses of {self.width} bytes")

    def register(self, number: int) -> int:
        """The register of access `number`."""
        offset = self.request.offset
        return offset >> 4 * number & 0xF if self.request.kind == WRITE_LIST else offset + number * self.step

    def single(self, number: int) -> Request:
        """Access `number` as a request of its own."""
        asked = self.request
        start = number * self.width
        return Request(
            READ if self.reads else WRITE,
            asked.device,
            self.width,
            asked.sequence,
            asked.now,
            int.from_bytes(self.data[start : start + self.width], "little"),
            self.register(number),
        )

    def reply(self, made: int, read: bytes, *, has_effects: bool) -> tuple[int, bytes]:
        """Value and payload behind the effects of the reply: `made` accesses were made, which have `read`."""
        if not self.reads:
            return 0, b"" if made == self.count else made.to_bytes(_MADE_BYTES, "little")
        if self.request.kind == READ_WIDE and not has_effects:
            return int.from_bytes(read, "little"), b""
        return 0, read

    def outcome(self, value: int, behind: bytes, *, has_effects: bool) -> tuple[int, bytes]:
        """How many accesses were made, at least one, and what they read, by the value of the reply and what
        is `behind` its effects. FrameError for what `reply` cannot have given.
        """
        read = b""
        made = self.count
        if self.request.kind == READ_WIDE and not has_effects:
            read = value.to_bytes(MAX_WIDE, "little")[: self.count]
            if value >> 8 * self.count or behind:
                raise FrameError(f"value {value:#x} and {len(behind)} bytes for {self.count} that were read")
        elif value:
            raise FrameError(f"value {value:#x} beside the effects of several accesses")
        elif self.reads:
            read = behind
            made, odd = divmod(len(read), self.width)
            if odd:
                raise FrameError(f"{len(read)} bytes of reads of {self.width} bytes each")
        elif behind:
            made = int.from_bytes(behind, "little")
            if len(behind) != _MADE_BYTES or made == self.count:
                raise FrameError(f"{len(behind)} stray bytes after its effects")
        if not 0 < made <= self.count or (made < self.count and not has_effects):
            raise FrameError(f"{made} of {self.count} accesses were made, without a cause to end there")
        return made, read


def ends(collected: list[Effect], latest: list[Effect], *, may_ask: bool) -> bool:
    """Whether a block ends behind an access with the effects `latest`, which are in `collected`, too.

    `may_ask`: whether the model may ask for answers.
    """
    return (
        may_ask
        or len(collected) >= MOST_EFFECTS
        or any(BY_CLASS[type(effect)].after_write for effect in latest)
        or sum(len(effect.data) for effect in collected if type(effect) is HostOutput) >= MOST_OUTPUT
    )
