"""The effects of the window of a VGA: which are granted, and the requests that bring its bytes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmbox.base.layout import KIB, VGA_MEMORY, VGA_MEMORY_SIZE
from kvmbox.contract.bulk_data import Aperture
from kvmbox.contract.model import DONE
from kvmbox.remote.published.guest_memory import answer
from kvmbox.wire import protocol

if TYPE_CHECKING:
    from kvmbox.contract.model import Effect
    from kvmbox.remote.channel.effect_calls import FollowUp

MOST_MOVED: Final = 64 * KIB
"""How many bytes of the window the device may ask for."""

_STEP: Final = protocol.MAX_PAYLOAD & ~3  # a byte for each plane


def allowed(effect: Effect) -> Aperture | None:
    """The effect if it is one that the device with the window may have."""
    if not isinstance(effect, Aperture):
        return None
    start, size = effect.address, effect.size
    is_inside = start >= VGA_MEMORY and start + size <= VGA_MEMORY + VGA_MEMORY_SIZE
    return effect if is_inside and (effect.is_plain or size <= MOST_MOVED) else None


def count_of(size: int) -> int:
    """How many requests bring `size` bytes."""
    return -(-size // _STEP)


def pieces(device: int, data: bytes) -> list[FollowUp]:
    """The requests that bring the device the bytes of a window."""
    return [
        answer(protocol.MEMORY, device, start, DONE, data[start : start + _STEP])
        for start in range(0, len(data), _STEP)
    ]
