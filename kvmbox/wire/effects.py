"""The table of the effects of device models, which defines their bytes, grants and descriptions.

A row of `TABLE` has the tag, the name and the class of an effect, the place of each field in the frame, and
the grants of the board that allow the effect (`contract.device_spec`). The table drives encoding, decoding,
the check of grants (`remote.channel.grants`), and the table in docs/wire-protocol.md. A new effect needs a
class in `contract.model`, a row here, the service of the host (`remote.channel.grants`), and its words for a
person (`effect_texts`).

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

from kvmbox.contract import model
from kvmbox.contract.model import HostOutput
from kvmbox.wire.effect_kinds import (
    ARGUMENT,
    BY_CLASS,
    BY_TAG,
    DATA,
    EFFECT,
    LEVEL,
    PIN,
    RANGES,
    WORD_BEHIND,
    EffectKind,
    add,
)
from kvmbox.wire.protocol import HEADER, MAX_PAYLOAD, NO_DEADLINE, REPLY, FrameError, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from kvmbox.contract.model import Effect
    from kvmbox.wire.effect_kinds import Fields

MAX_EFFECTS: Final = 255


def _stray_coalesced(effect: model.IrqLine) -> str | None:
    return f"with level 0, coalesced {effect.coalesced}" if effect.coalesced and not effect.level else None


_OF_RESOURCE: Final[Fields] = (
    *((ARGUMENT, "tag"), (WORD_BEHIND, "index of the resource"), (WORD_BEHIND, "offset in it")),
)

# The formatter would give each cell a line of its own.
# fmt: off
TABLE: Final = (
    EffectKind(1, "IRQ_LINE", "irq", model.IrqLine,
               ((PIN, "the model's output pin"), (LEVEL, "its new level"),
                (ARGUMENT, "rising edges folded into this one; 0 if the level is 0")),
               grants=("Irq", "ReplacingIrq", "Intx", "Vectors"), flaw=_stray_coalesced),
    EffectKind(2, "HOST_OUTPUT", "output", HostOutput, ((DATA, "the output"),),
               grants=("Output", "BiosReport")),
    EffectKind(3, "INPUT_ROOM", "room", model.InputRoom,
               ((ARGUMENT, "how many bytes RECEIVE would accept now"),), grants=("Input",)),
    EffectKind(4, "RESET", "reset", model.Reset, (), grants=("Reset",), after_write=True),
    EffectKind(5, "STOP", "stop", model.Stop, (),
               grants=("StopValue", "StopClean", "StopPanic", "BiosReport"), after_write=True),
    EffectKind(6, "MEMORY_READ", "memory read", model.MemoryRead,
               ((ARGUMENT, "tag"), (RANGES, "where the bytes are")), grants=("Memory",)),
    EffectKind(7, "MEMORY_WRITE", "memory write", model.MemoryWrite,
               ((WORD_BEHIND, "address"), (DATA, "the data"), (WORD_BEHIND, "tag, or 0")),
               grants=("Memory",)),
    EffectKind(8, "TRANSFER", "transfer", model.Transfer,
               (*_OF_RESOURCE, (RANGES, "where in memory"), (LEVEL, "1: to memory, 0: from memory")),
               grants=("Resource", "Content")),
    EffectKind(9, "CONTENT_READ", "content read", model.ContentRead, (*_OF_RESOURCE, (WORD_BEHIND, "size")),
               grants=("Content",)),
    EffectKind(10, "TAKE_LINE", "line", model.TakeLine,
               ((PIN, "the model's output pin"),
                (LEVEL, "1: it alone drives its line, 0: other devices do, too")),
               grants=("ReplacingIrq",)),
    EffectKind(11, "SUSPEND", "suspend", model.Suspend,
               ((ARGUMENT, "what may wake the machine: 1 for the clock's alarm"),),
               grants=("Suspend",), after_write=True),
    EffectKind(12, "LATE_WRITES", "late writes", model.LateWrites,
               ((PIN, "the register"),
                (LEVEL, "1: writes to it may be late; 0: they must not; 2: see below")),
               grants=("LateWrites",), most_level=2),
    EffectKind(13, "RISES_AT", "rise", model.RisesAt,
               ((PIN, "the model's output pin"),
                (WORD_BEHIND, "when it will rise, in ns; all ones: it may not")),
               grants=("Irq", "ReplacingIrq")),
)
# fmt: on
"""The effects of a PC without disks. `bulk_effect_table` has the others, and adds them when it is loaded."""

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
    """The kind from the table that is loaded when it is wanted."""
    import kvmbox.wire.bulk_effect_table  # noqa: F401 - adds its kinds

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
