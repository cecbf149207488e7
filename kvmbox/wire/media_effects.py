"""The rest of the table of effects: those of `devices.media`.

A device process loads it with such a model, and the VMM with the grants `Medium` and `Queues`. To a VMM
without these grants they are unknown effects.
"""

from __future__ import annotations

from kvmbox.devices.media import (
    ChainRead,
    ChainTransfer,
    ChainUsed,
    ChainWrite,
    Flush,
    Queue,
    Walk,
    Window,
)
from kvmbox.wire.effects import ARGUMENT, DATA, LEVEL, PIN, WORD_BEHIND, EffectKind, add, excerpt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

TABLE: Final = (
    EffectKind(
        14,
        "WINDOW",
        "window",
        Window,
        (
            (ARGUMENT, "tag"),
            (PIN, "index of the medium"),
            (WORD_BEHIND, "offset in it"),
            (WORD_BEHIND, "size; 0: no window"),
            (LEVEL, "1: the guest reads, 0: the guest writes"),
        ),
        grants=("Medium",),
        text=lambda effect, _: (
            f"lets the guest {'read' if effect.to_guest else 'write'} {effect.size} bytes of medium "
            f"{effect.resource} at byte {effect.offset} (tag {effect.tag})"
        ),
    ),
    EffectKind(
        15,
        "FLUSH",
        "flush",
        Flush,
        ((ARGUMENT, "tag"), (PIN, "index of the medium")),
        grants=("Medium",),
        text=lambda effect, _: f"asks to flush medium {effect.resource} (tag {effect.tag})",
    ),
    EffectKind(
        16,
        "QUEUE",
        "queue",
        Queue,
        (
            (PIN, "index of the queue"),
            (ARGUMENT, "number of entries; 0: no queue"),
            (WORD_BEHIND, "1: event index, 2: indirect descriptors"),
            (WORD_BEHIND, "address of the descriptors"),
            (WORD_BEHIND, "address of the available ring"),
            (WORD_BEHIND, "address of the used ring"),
        ),
        grants=("Queues",),
        after_write=True,
        text=lambda effect, _: (
            f"has queue {effect.index} of {effect.size} at {effect.descriptors:#x}, {effect.available:#x}, "
            f"{effect.used:#x}"
        ),
    ),
    EffectKind(
        17,
        "WALK",
        "walk",
        Walk,
        ((PIN, "index of the queue"), (ARGUMENT, "how many chains at most")),
        grants=("Queues",),
        text=lambda effect, _: f"asks for {effect.count} chains of queue {effect.index}",
    ),
    EffectKind(
        18,
        "CHAIN_READ",
        "chain read",
        ChainRead,
        ((ARGUMENT, "handle"), (WORD_BEHIND, "bytes to skip"), (WORD_BEHIND, "size")),
        grants=("Queues",),
        text=lambda effect, _: f"asks for {effect.size} bytes of chain {effect.handle} at {effect.skip}",
    ),
    EffectKind(
        19,
        "CHAIN_WRITE",
        "chain write",
        ChainWrite,
        ((WORD_BEHIND, "handle"), (WORD_BEHIND, "bytes to skip"), (DATA, "the data")),
        grants=("Queues",),
        text=lambda effect, _: (
            f"writes {len(effect.data)} bytes to chain {effect.handle} at {effect.skip}: "
            f"{excerpt(effect.data)}"
        ),
    ),
    EffectKind(
        20,
        "CHAIN_TRANSFER",
        "chain transfer",
        ChainTransfer,
        (
            (ARGUMENT, "handle"),
            (PIN, "index of the medium"),
            (WORD_BEHIND, "offset in it"),
            (WORD_BEHIND, "bytes of the chain to skip"),
            (WORD_BEHIND, "size"),
            (LEVEL, "1: to the guest, 0: from the guest"),
        ),
        grants=("Medium",),
        text=lambda effect, _: (
            f"asks to {'read' if effect.to_guest else 'write'} {effect.size} bytes of medium "
            f"{effect.resource} at byte {effect.offset} for chain {effect.handle} at {effect.skip}"
        ),
    ),
    EffectKind(
        21,
        "CHAIN_USED",
        "chain used",
        ChainUsed,
        ((PIN, "the model's output pin"), (ARGUMENT, "handle"), (WORD_BEHIND, "bytes written")),
        grants=("Queues",),
        text=lambda effect, _: f"gives back chain {effect.handle} with {effect.written} bytes",
    ),
)

add(TABLE)
