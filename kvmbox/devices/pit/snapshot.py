"""The state of the 8254 and port 0x61 as versioned bytes, and the rules that bytes from elsewhere must keep.

A snapshot is one fixed little-endian structure. What follows from other fields (the effective mode, the
position, OUT, the level of the interrupt line, when a waiting count is loaded) is not stored.
"""

from __future__ import annotations

import struct

from kvmbox.contract.model import SnapshotError
from kvmbox.devices.pit.counter import (
    CONTROL_BCD,
    CONTROL_KEPT,
    CONTROL_RW_SHIFT,
    COUNT_LOADED,
    COUNT_LOADS,
    COUNT_WAITS,
    POWER_ON_CONTROL,
    RW_LSB,
    RW_MSB,
    RW_NONE,
    RW_WORD,
    CounterState,
    effective_mode,
)
from kvmbox.devices.pit.waveform import (
    BCD_MODULUS,
    BINARY_MODULUS,
    INTERRUPT_ON_TERMINAL_COUNT,
    RATE_GENERATOR,
    SOFTWARE_STROBE,
    SQUARE_WAVE,
    pulses_within,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NamedTuple
else:
    from kvmbox.base.value_classes import NamedTuple

VERSION: Final = 1
MAX_TIME: Final = (1 << 63) - 1
"""Guest time stands still from here on: 292 years after power-on."""

COUNTERS: Final = 3


class PitState(NamedTuple):
    """All state of the model. Times are ns of guest time."""

    now: int
    control_b: int  # port 0x61, the bits that a program writes
    line_driven: int  # counter 0's OUT has reached the interrupt line since power-on
    counters: tuple[CounterState, ...]


_HEAD: Final = struct.Struct("<HQBB")
_COUNTER: Final = struct.Struct("<BBBBIIQqHBBBHBBB")
_SIZE: Final = _HEAD.size + COUNTERS * _COUNTER.size


def pack(state: PitState) -> bytes:
    """`state` as bytes."""
    head = _HEAD.pack(VERSION, state.now, state.control_b, state.line_driven)
    return head + b"".join(_COUNTER.pack(*counter) for counter in state.counters)


def unpack(data: bytes) -> PitState:
    """The state that `data` holds. Raises SnapshotError unless the model could have packed exactly this."""
    if len(data) != _SIZE:
        raise SnapshotError(f"PIT snapshot: {len(data)} bytes, expected {_SIZE}")
    version, now, control_b, line_driven = _HEAD.unpack_from(data)
    if version != VERSION:
        raise SnapshotError(f"PIT snapshot: version {version}, expected {VERSION}")
    if now > MAX_TIME or control_b > 0x0F or line_driven > 1:
        raise SnapshotError("PIT snapshot: guest time, port 0x61 or interrupt line")
    counters = tuple(CounterState._make(fields) for fields in _COUNTER.iter_unpack(data[_HEAD.size :]))
    for index, counter in enumerate(counters):
        gate = control_b & 1 if index == COUNTERS - 1 else 1
        for rule, kept in _rules(counter, now, gate).items():
            if not kept:
                raise SnapshotError(f"PIT snapshot: counter {index}: {rule}")
    return PitState(now, control_b, line_driven, counters)


def _is_coded(register: int, bcd: int) -> bool:
    return not bcd or all((register >> shift & 15) <= 9 for shift in (0, 4, 8, 12))


def _rules(s: CounterState, now: int, gate: int) -> dict[str, bool]:
    """What holds of every state that a counter can reach, by what to say when it does not."""
    access = s.control >> CONTROL_RW_SHIFT
    mode = effective_mode(s.control)
    bcd = s.control & CONTROL_BCD
    modulus = BCD_MODULUS if bcd else BINARY_MODULUS
    software = mode in (INTERRUPT_ON_TERMINAL_COUNT, SOFTWARE_STROBE)
    periodic = mode in (RATE_GENERATOR, SQUARE_WAVE)
    counts = bool(s.loaded) and (gate or not (software or periodic))
    between_bytes = mode == INTERRUPT_ON_TERMINAL_COUNT and bool(s.write_msb_next)
    return {
        "flags": max(s.loaded, s.write_msb_next, s.read_msb_next, s.status_latched) <= 1,
        "control word": s.control <= CONTROL_KEPT and (access != RW_NONE or s.control == POWER_ON_CONTROL),
        "gate": s.gate == gate,
        "time of load": s.epoch <= now,
        "null count": s.null_count in (COUNT_LOADED, COUNT_WAITS)
        or (s.null_count == COUNT_LOADS and s.epoch == now),
        "loaded_count": 1 <= s.loaded_count <= modulus
        and (not s.loaded or s.loaded_count == s.register or s.null_count == COUNT_WAITS),
        "count register": (1 if s.loaded else 0) <= s.register <= modulus
        and (bool(s.loaded) or s.register == 0 or between_bytes or not (software or periodic)),
        "counting element": not (s.loaded and between_bytes)
        and (s.residue == 0 if s.loaded else s.residue < modulus and s.loaded_count == 1 and s.base == 0),
        "position": s.base + (pulses_within(now - s.epoch) if counts and s.epoch <= now else 0) >= 0,
        "waiting count": (s.null_count == COUNT_WAITS or s.register != 0)
        and not (s.loaded and software and s.null_count == COUNT_WAITS)
        and (bool(s.loaded) or s.null_count == COUNT_WAITS or between_bytes),
        "flip-flops": access == RW_WORD or not (s.write_msb_next or s.read_msb_next),
        "first byte": bool(s.write_msb_next) or s.write_lsb == 0,
        "count latch": s.latch_bytes in _LATCH_STATES[access & 3]
        and _is_coded(s.latch, bcd)
        and (s.latch_bytes != RW_NONE or s.latch == 0),
        "status latch": s.status & CONTROL_KEPT == s.control if s.status_latched else s.status == 0,
    }


# Bytes of the output latch still to be read, by RW.
_LATCH_STATES: Final = (
    (RW_NONE, RW_LSB),
    (RW_NONE, RW_LSB),
    (RW_NONE, RW_MSB),
    (RW_NONE, RW_MSB, RW_WORD),
)
