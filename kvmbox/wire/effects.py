"""The table of the effects of device models, which defines their bytes, grants and descriptions.

A row of `TABLE` has the tag, the name and the class of an effect, the place of each field in the frame, the
and the grants of the board that allow the effect (`kvmbox.board`). The table drives encoding, decoding, the
check of grants (`remote.grants`), and the table in docs/wire-protocol.md. A new effect needs a class in
`devices.model`, a row here, the service of the host (`remote.grants`), and its words for a person
(`effect_texts`).

Effects are at the beginning of the payload of a reply. Each has 8 bytes, and some have more data after them:

    offset  size  what
    0       1     tag
    1       1     device: index in the process
    2       1     pin, or the number of ranges that follow
    3       1     level
    4       4     argument, or the length of the data that follow
    8             words of 8 bytes; then ranges, each an address of 8 bytes and a size of 4; or else data

Every byte from a device process is hostile: `decode_effects` refuses what `encode_effects` cannot have
written. Whether the device was granted the effect is checked where effects are applied.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.devices.model import (
    ContentRead,
    Effect,
    HostOutput,
    InputRoom,
    IrqLine,
    LateWrites,
    MemoryRead,
    MemoryWrite,
    Reset,
    RisesAt,
    Stop,
    Suspend,
    TakeLine,
    Transfer,
)
from kvmbox.wire.protocol import HEADER, MAX_PAYLOAD, NO_DEADLINE, REPLY, FrameError, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeAlias

    Fields: TypeAlias = tuple[tuple[str, str], ...]

EFFECT: Final = Struct("<BBBBI")
WORD: Final = Struct("<Q")
RANGE: Final = Struct("<QI")

MAX_EFFECTS: Final = 255
MAX_ARGUMENT: Final = 0xFFFF_FFFF

# Where a field of an effect lies.
PIN: Final = "pin"
LEVEL: Final = "level"
ARGUMENT: Final = "argument"
WORD_BEHIND: Final = "words"
RANGES: Final = "ranges"  # their number is where the pin would be
DATA: Final = "data"  # their length is the argument

_FIXED: Final = 5  # numbers before the words: tag, device, and these
_AT_PIN: Final = 2
_AT_LEVEL: Final = 3
_AT_ARGUMENT: Final = 4
_AT_RANGES: Final = -1
_AT_DATA: Final = -2
_PLACES: Final = {PIN: _AT_PIN, LEVEL: _AT_LEVEL, ARGUMENT: _AT_ARGUMENT, RANGES: _AT_RANGES, DATA: _AT_DATA}


class EffectKind:
    """A row of the table.

    `fields` are (place, meaning), one for each argument of `make` in its order. `grants` are the names of the
    classes in `kvmbox.board` that allow the effect. With `after_write` it is valid only in the reply to a
    write of the guest to the very device that has it. `flaw` says what is wrong with an argument that does
    not fit the other fields.
    """

    __slots__ = (
        *("_layout", "_of_field", "_plain", "after_write", "fields", "flaw", "grants"),
        *("has_argument", "has_data", "has_pin", "has_ranges", "make", "most_level", "name"),
        *("short", "tag", "words"),
    )

    def __init__(
        self,
        tag: int,
        name: str,
        short: str,
        make: type[Effect],
        fields: Fields,
        *,
        grants: tuple[str, ...],
        after_write: bool = False,
        most_level: int = 1,
        flaw: Callable[[Any], str | None] = lambda _: None,
    ) -> None:
        self.tag = tag
        self.name = name
        self.short = short
        self.make = make
        self.fields = fields
        self.grants = grants
        self.after_write = after_write
        self.flaw = flaw
        places = [place for place, _ in fields]
        self.words = places.count(WORD_BEHIND)
        self.has_ranges = RANGES in places
        self.has_data = DATA in places
        self.has_pin = PIN in places or self.has_ranges
        self.most_level = most_level if LEVEL in places else 0
        self.has_argument = ARGUMENT in places or self.has_data
        # The eight bytes and the words behind them in one piece: which of its numbers is which field.
        self._layout = Struct(EFFECT.format + WORD.format[1:] * self.words)
        self._of_field = _numbers_of(places)
        names = dict(zip(self._of_field, make.__match_args__, strict=True))
        is_plain = not (self.has_data or self.has_ranges)
        # By number behind tag and device, if there is nothing behind the numbers: the name of its field.
        self._plain = (
            tuple(names.get(place) for place in range(_AT_PIN, _FIXED + self.words)) if is_plain else ()
        )

    def encode(self, device: int, effect: Effect) -> bytes:
        """The bytes of an effect of this kind."""
        if self._plain:
            values = [0 if name is None else getattr(effect, name) for name in self._plain]
            values[2] = min(values[2], MAX_ARGUMENT)
            return self._layout.pack(self.tag, device, *values)
        numbers = [self.tag, device, 0, 0, 0, *[0] * self.words]
        tail = b""
        for place, name in zip(self._of_field, self.make.__match_args__, strict=True):
            value = getattr(effect, name)
            if place == _AT_RANGES:
                numbers[_AT_PIN] = len(value)
                tail = b"".join([RANGE.pack(address, size) for address, size in value])
            elif place == _AT_DATA:
                numbers[_AT_ARGUMENT] = len(value)
                tail = value
            elif place == _AT_ARGUMENT:
                numbers[_AT_ARGUMENT] = value if value < MAX_ARGUMENT else MAX_ARGUMENT
            else:
                numbers[place] = value
        return self._layout.pack(*numbers) + tail

    def decode(self, pin: int, level: int, argument: int, body: bytes, start: int) -> tuple[Effect, int]:
        """The effect, and where in `body` its bytes end that stand at `start`, behind the first eight."""
        if (pin and not self.has_pin) or (level and not self.most_level):
            raise FrameError(f"effect {self.tag} with stray fields")
        if argument and not self.has_argument:
            raise FrameError(f"effect {self.tag} with a value")
        if level > self.most_level:
            raise FrameError(f"{self.short} effect with level {level}")
        end = start + self.words * WORD.size
        tail = argument if self.has_data else pin * RANGE.size if self.has_ranges else 0
        if end + tail > len(body):
            raise FrameError(f"{self.short} of {end + tail - start} bytes, {len(body) - start} are left")
        numbers = self._layout.unpack_from(body, start - EFFECT.size)
        if not (self.has_data or self.has_ranges):
            effect = self.make(*[numbers[place] for place in self._of_field])
            if argument and (flaw := self.flaw(effect)) is not None:
                raise FrameError(f"{self.short} effect {flaw}")
            return effect, end
        values: list[Any] = []
        for place in self._of_field:
            if place == _AT_RANGES:
                values.append([RANGE.unpack_from(body, end + RANGE.size * index) for index in range(pin)])
            elif place == _AT_DATA:
                values.append(body[end : end + tail])
            else:
                values.append(numbers[place])
        return self.make(*values), end + tail


def _numbers_of(places: list[str]) -> list[int]:
    """By field: which number of the fixed part it is, or `_AT_RANGES` or `_AT_DATA`."""
    found = []
    word = _FIXED
    for place in places:
        if place == WORD_BEHIND:
            found.append(word)
            word += 1
        else:
            found.append(_PLACES[place])
    return found


def _stray_coalesced(effect: IrqLine) -> str | None:
    return f"with level 0, coalesced {effect.coalesced}" if effect.coalesced and not effect.level else None


TABLE: Final = (
    EffectKind(
        1,
        "IRQ_LINE",
        "irq",
        IrqLine,
        (
            (PIN, "the model's output pin"),
            (LEVEL, "its new level"),
            (ARGUMENT, "rising edges folded into this one; 0 if the level is 0"),
        ),
        grants=("Irq", "ReplacingIrq", "Intx", "Vectors"),
        flaw=_stray_coalesced,
    ),
    EffectKind(
        2,
        "HOST_OUTPUT",
        "output",
        HostOutput,
        ((DATA, "the output"),),
        grants=("Output", "BiosReport"),
    ),
    EffectKind(
        3,
        "INPUT_ROOM",
        "room",
        InputRoom,
        ((ARGUMENT, "how many bytes RECEIVE would accept now"),),
        grants=("Input",),
    ),
    EffectKind(
        4,
        "RESET",
        "reset",
        Reset,
        (),
        grants=("Reset",),
        after_write=True,
    ),
    EffectKind(
        5,
        "STOP",
        "stop",
        Stop,
        (),
        grants=("StopValue", "StopClean", "StopPanic", "BiosReport"),
        after_write=True,
    ),
    EffectKind(
        6,
        "MEMORY_READ",
        "memory read",
        MemoryRead,
        ((ARGUMENT, "tag"), (RANGES, "where the bytes are")),
        grants=("Memory",),
    ),
    EffectKind(
        7,
        "MEMORY_WRITE",
        "memory write",
        MemoryWrite,
        ((WORD_BEHIND, "address"), (DATA, "the data"), (WORD_BEHIND, "tag, or 0")),
        grants=("Memory",),
    ),
    EffectKind(
        8,
        "TRANSFER",
        "transfer",
        Transfer,
        (
            (ARGUMENT, "tag"),
            (WORD_BEHIND, "index of the resource"),
            (WORD_BEHIND, "offset in it"),
            (RANGES, "where in memory"),
            (LEVEL, "1: to memory, 0: from memory"),
        ),
        grants=("Resource", "Content"),
    ),
    EffectKind(
        9,
        "CONTENT_READ",
        "content read",
        ContentRead,
        (
            (ARGUMENT, "tag"),
            (WORD_BEHIND, "index of the resource"),
            (WORD_BEHIND, "offset in it"),
            (WORD_BEHIND, "size"),
        ),
        grants=("Content",),
    ),
    EffectKind(
        10,
        "TAKE_LINE",
        "line",
        TakeLine,
        (
            (PIN, "the model's output pin"),
            (LEVEL, "1: it alone drives its line, 0: other devices do, too"),
        ),
        grants=("ReplacingIrq",),
    ),
    EffectKind(
        11,
        "SUSPEND",
        "suspend",
        Suspend,
        ((ARGUMENT, "what may wake the machine: 1 for the clock's alarm"),),
        grants=("Suspend",),
        after_write=True,
    ),
    EffectKind(
        12,
        "LATE_WRITES",
        "late writes",
        LateWrites,
        ((PIN, "the register"), (LEVEL, "1: writes to it may be late; 0: they must not; 2: see below")),
        most_level=2,
        grants=("LateWrites",),
    ),
    EffectKind(
        13,
        "RISES_AT",
        "rise",
        RisesAt,
        ((PIN, "the model's output pin"), (WORD_BEHIND, "when it will rise, in ns; all ones: it may not")),
        grants=("Irq", "ReplacingIrq"),
    ),
)
"""The effects of a PC without disks. `media_effects` has the others, and adds them when it is loaded."""

BY_CLASS: Final[dict[type[Effect], EffectKind]] = {}
BY_TAG: Final[dict[int, EffectKind]] = {}


def add(table: tuple[EffectKind, ...]) -> None:
    """Let the effects of a table be encoded and decoded."""
    BY_CLASS.update({kind.make: kind for kind in table})
    BY_TAG.update({kind.tag: kind for kind in table})


add(TABLE)

HOST_OUTPUT: Final = BY_CLASS[HostOutput].tag


def encode_effects_of(device: int, effects: list[Effect]) -> bytes:
    """The bytes of the effects of one device, in order."""
    if len(effects) == 1 and isinstance(effects[0], HostOutput):  # what printing causes, at each character
        data = effects[0].data
        return EFFECT.pack(HOST_OUTPUT, device, 0, 0, len(data)) + data
    return b"".join([BY_CLASS[type(effect)].encode(device, effect) for effect in effects])


def encode_effects(effects: list[tuple[int, Effect]]) -> bytes:
    """The bytes of (device index, effect) pairs, in order."""
    return b"".join([BY_CLASS[type(effect)].encode(device, effect) for device, effect in effects])


def decode_effects(count: int, body: bytes) -> tuple[list[tuple[int, Effect]], bytes]:
    """`count` (device index, effect) pairs from the front of `body`, and what follows them.

    FrameError for anything that `encode_effects` cannot have written.
    """
    effects: list[tuple[int, Effect]] = []
    position = 0
    for _ in range(count):
        if position + EFFECT.size > len(body):
            raise FrameError(f"{count} effects announced, the payload ends after {len(effects)}")
        tag, device, pin, level, argument = EFFECT.unpack_from(body, position)
        kind = BY_TAG.get(tag) or _rare(tag)
        if kind is None:
            raise FrameError(f"unknown effect {tag}")
        effect, position = kind.decode(pin, level, argument, body, position + EFFECT.size)
        effects.append((device, effect))
    return effects, body[position:]


def _rare(tag: int) -> EffectKind | None:
    """The effect of a table that is loaded when it is wanted: by name, as it imports this module."""
    __import__("kvmbox.wire.media_effects")
    return BY_TAG.get(tag)


def encode_reply(
    request: Request,
    deadline: int | None,
    value: int,
    effects: list[tuple[int, Effect]],
    payload: bytes = b"",
) -> bytes:
    """The reply to `request`. `effects` are (device index, effect) pairs; they precede `payload`."""
    body = encode_effects(effects) + payload
    if len(effects) > MAX_EFFECTS or len(body) > MAX_PAYLOAD:
        raise FrameError(f"{len(effects)} effects in {len(body)} bytes do not fit in a reply")
    header = HEADER.pack(
        request.kind | REPLY,
        request.device,
        request.size,
        len(effects),
        request.sequence,
        NO_DEADLINE if deadline is None else deadline,
        value,
        0,
        len(body),
    )
    return header + body
