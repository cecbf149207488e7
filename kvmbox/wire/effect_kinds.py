"""What a kind of effect is: its bytes in a frame, and who may have it. `effects` has the table of them.

Every kind that is known is in `BY_CLASS` and `BY_TAG`: a table adds its kinds when it is loaded.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.contract.model import Effect
from kvmbox.wire.protocol import FrameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeAlias

    Fields: TypeAlias = tuple[tuple[str, str], ...]

EFFECT: Final = Struct("<BBBBI")
WORD: Final = Struct("<Q")
RANGE: Final = Struct("<QI")

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
    classes in `contract.device_spec` that allow the effect. With `after_write` it is valid only in the reply
    to a write of the guest to the very device that has it. `flaw` says what is wrong with an argument that
    does not fit the other fields.
    """

    __slots__ = (
        *("_layout", "_most", "_of_field", "_plain", "after_write", "fields", "flaw", "grants"),
        *("has_data", "has_ranges", "make", "name", "short", "tag", "words"),
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
        # Of pin, level and argument.
        self._most = (
            0xFF if PIN in places or self.has_ranges else 0,
            most_level if LEVEL in places else 0,
            MAX_ARGUMENT if ARGUMENT in places or self.has_data else 0,
        )
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
        most_pin, most_level, most_argument = self._most
        if pin > most_pin or (level and not most_level):
            raise FrameError(f"effect {self.tag} with stray fields")
        if argument > most_argument:
            raise FrameError(f"effect {self.tag} with a value")
        if level > most_level:
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


BY_CLASS: Final[dict[type[Effect], EffectKind]] = {}
BY_TAG: Final[dict[int, EffectKind]] = {}


def add(table: tuple[EffectKind, ...]) -> None:
    """Let the effects of a table be encoded and decoded."""
    BY_CLASS.update({kind.make: kind for kind in table})
    BY_TAG.update({kind.tag: kind for kind in table})
