"""Chance that is the same in every run: a hash of the seed, the device, the fault and the number of an event.

SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014, figure 17). Its
n-th number can be computed without those before it. So an event's fate depends on its own number alone, and
not on the events of other devices, the time, or the thread that asks.
"""

from __future__ import annotations

from typing import Final

CERTAIN: Final = 1 << 64
"""The threshold of a chance of 1."""

_MASK: Final = CERTAIN - 1
_GOLDEN_GAMMA: Final = 0x9E37_79B9_7F4A_7C15


def number(key: int, index: int) -> int:
    """Number `index`, from 0 on, of the sequence that SplitMix64 gives for the seed `key`: 64 bits."""
    mixed = key + (index + 1) * _GOLDEN_GAMMA & _MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58_476D_1CE4_E5B9 & _MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D0_49BB_1331_11EB & _MASK
    return mixed ^ mixed >> 31


def key_of(seed: int, device: str, fault: str) -> int:
    """The key of one fault of one device."""
    key = number(seed, 0)
    for byte in f"{device}:{fault}".encode():
        key = number(key ^ byte, 0)
    return key


def threshold(probability: float) -> int:
    """What `number` must be less than for an event that is as likely as that: from 0 to `CERTAIN`."""
    return int(probability * CERTAIN)
