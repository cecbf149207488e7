"""The rest of the table of effects: those of `contract.bulk_data`.

A device process loads it with such a model, and the VMM with the grants `Medium` and `Queues`. To a VMM
without these grants they are unknown effects.
"""

from __future__ import annotations

from kvmbox.contract import bulk_data
from kvmbox.wire.effect_kinds import ARGUMENT, DATA, LEVEL, PIN, WORD_BEHIND, EffectKind, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from kvmbox.wire.effect_kinds import Fields

_MOVED: Final[Fields] = (
    (ARGUMENT, "handle"),
    (PIN, "index of the medium"),
    (WORD_BEHIND, "offset in it"),
    (WORD_BEHIND, "bytes of the chain to skip"),
    (WORD_BEHIND, "size"),
    (LEVEL, "1: to the guest, 0: from the guest"),
)
"""What is moved between a chain and a medium."""

# The formatter would give each cell a line of its own.
# fmt: off
TABLE: Final = (
    EffectKind(14, "WINDOW", "window", bulk_data.Window,
               ((ARGUMENT, "tag"), (PIN, "index of the medium"), (WORD_BEHIND, "offset in it"),
                (WORD_BEHIND, "size; 0: no window"),
                (LEVEL, "0: the guest writes, 1: it reads; 2: quiet end, 4: quiet start, 8: pin 0 rises")),
               grants=("Medium",), most_level=bulk_data.MOST_TO_GUEST),
    EffectKind(15, "FLUSH", "flush", bulk_data.Flush, ((ARGUMENT, "tag"), (PIN, "index of the medium")),
               grants=("Medium",)),
    EffectKind(16, "QUEUE", "queue", bulk_data.Queue,
               ((PIN, "index of the queue"), (ARGUMENT, "number of entries; 0: no queue"),
                (WORD_BEHIND, "1: event index, 2: indirect descriptors"),
                (WORD_BEHIND, "address of the descriptors"), (WORD_BEHIND, "address of the available ring"),
                (WORD_BEHIND, "address of the used ring")),
               grants=("Queues",), after_write=True),
    EffectKind(17, "WALK", "walk", bulk_data.Walk,
               ((PIN, "index of the queue"), (ARGUMENT, "how many chains at a time; 0: none any more"),
                (WORD_BEHIND, "the model's output pin")),
               grants=("Queues",)),
    EffectKind(18, "CHAIN_READ", "chain read", bulk_data.ChainRead,
               ((ARGUMENT, "handle"), (WORD_BEHIND, "bytes to skip"), (WORD_BEHIND, "size")),
               grants=("Queues",)),
    EffectKind(19, "CHAIN_WRITE", "chain write", bulk_data.ChainWrite,
               ((WORD_BEHIND, "handle"), (WORD_BEHIND, "bytes to skip"), (DATA, "the data")),
               grants=("Queues",)),
    EffectKind(20, "CHAIN_TRANSFER", "chain transfer", bulk_data.ChainTransfer, _MOVED, grants=("Medium",)),
    EffectKind(21, "CHAIN_USED", "chain used", bulk_data.ChainUsed,
               ((ARGUMENT, "handle"), (WORD_BEHIND, "bytes written")), grants=("Queues",)),
    EffectKind(26, "CHAIN_SERVE", "chain serve", bulk_data.ChainServe,
               (*_MOVED, (WORD_BEHIND, "place of the status byte"),
                (WORD_BEHIND, "the byte if all went well"), (WORD_BEHIND, "the byte otherwise")),
               grants=("Medium",)),
    EffectKind(27, "CONFIG_CHANGED", "configuration", bulk_data.ConfigChanged,
               ((PIN, "the model's output pin"),), grants=("Queues",)),
    EffectKind(30, "CONNECT", "connection", bulk_data.Connect,
               ((PIN, "index of the queue"), (LEVEL, "1: packets go to the guest, 0: they come from it"),
                (ARGUMENT, "index of the medium"), (WORD_BEHIND, "bytes before a packet"),
                (WORD_BEHIND, "where among them the number of chains is; 0: nowhere"),
                (WORD_BEHIND, "how many chains a packet may take")),
               grants=("Medium",)),
    EffectKind(28, "APERTURE", "aperture", bulk_data.Aperture,
               ((LEVEL, "1: the window may be plain memory, 0: its accesses are to come to the device"),
                (WORD_BEHIND, "address"), (WORD_BEHIND, "size")),
               grants=("Aperture",)),
    EffectKind(29, "FRAME_BUFFER", "frame buffer", bulk_data.FrameBuffer,
               ((PIN, "which 64 KiB of it"), (LEVEL, "1: they are at 0xA0000; 0: RAM is"),
                (ARGUMENT, "how many bytes of it are cleared")),
               grants=("FrameBuffer",), after_write=True),
)
# fmt: on

add(TABLE)
