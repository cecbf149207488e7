"""What the PIT's snapshots must not hold: one damage per rule, all else as the model wrote it."""

from __future__ import annotations

import pytest

from kvmbox.contract.model import SnapshotError
from kvmbox.devices.pit.model import Pit8254
from kvmbox.devices.pit.snapshot import MAX_TIME, PitState, pack, unpack

NOW = 1_000_000


def state_with(control: int, *count: int) -> PitState:
    """The state at NOW of a PIT whose counter 0 was programmed at 0."""
    pit = Pit8254()
    pit.write(0, 3, 1, control)
    for byte in count:
        pit.write(0, 0, 1, byte)
    pit.advance(NOW)
    pit.take_effects()
    return unpack(pit.snapshot())


def damaged(state: PitState, **fields: int) -> bytes:
    """`state` with these fields of counter 0 changed."""
    return pack(state._replace(counters=(state.counters[0]._replace(**fields), *state.counters[1:])))


@pytest.mark.parametrize(
    ("control", "count", "fields"),
    [
        (0x34, (1, 2), {"loaded": 2}),
        (0x34, (1, 2), {"read_msb_next": 2}),
        (0x34, (1, 2), {"control": 0x74}),
        (0x34, (1, 2), {"control": 0x04}),
        (0x34, (1, 2), {"gate": 0}),
        (0x34, (1, 2), {"epoch": NOW + 1}),
        (0x34, (1, 2), {"null_count": 3}),
        (0x34, (1, 2), {"null_count": 2}),
        (0x34, (1, 2), {"loaded_count": 0}),
        (0x34, (1, 2), {"loaded_count": 7}),
        (0x34, (1, 2), {"register": 0x10001}),
        (0x35, (1, 2), {"register": 10_001, "loaded_count": 10_001}),
        (0x34, (1, 2), {"register": 0, "null_count": 1}),
        (0x34, (1, 2), {"residue": 1}),
        (0x34, (1, 2), {"base": -2000}),
        (0x34, (1, 2), {"write_lsb": 1}),
        (0x14, (9,), {"write_msb_next": 1}),
        (0x14, (9,), {"read_msb_next": 1}),
        (0x34, (1, 2), {"latch": 1}),
        (0x34, (1, 2), {"latch_bytes": 1}),
        (0x14, (9,), {"latch_bytes": 2}),
        (0x35, (9, 0), {"latch_bytes": 3, "latch": 0xA000}),
        (0x34, (1, 2), {"status": 1}),
        (0x34, (1, 2), {"status_latched": 1, "status": 0x36}),
        (0x30, (1, 2), {"null_count": 1}),
        (0x30, (1, 2), {"write_msb_next": 1}),
        (0x34, (), {"null_count": 0}),
        (0x34, (), {"register": 5}),
        (0x34, (), {"loaded_count": 5}),
        (0x34, (), {"base": 5}),
        (0x35, (), {"residue": 10_000}),
        (0x32, (9, 0), {"null_count": 0}),
    ],
)
def test_snapshot_with_an_unreachable_counter_is_rejected(
    control: int, count: tuple[int, ...], fields: dict[str, int]
) -> None:
    state = state_with(control, *count)
    assert unpack(pack(state)) == state
    with pytest.raises(SnapshotError, match="counter 0"):
        unpack(damaged(state, **fields))


@pytest.mark.parametrize(
    ("now", "control_b", "line_driven"), [(MAX_TIME + 1, 0, 1), (NOW, 0x10, 1), (NOW, 0, 2)]
)
def test_snapshot_with_an_unreachable_board_is_rejected(now: int, control_b: int, line_driven: int) -> None:
    counters = state_with(0x34, 1, 2).counters
    with pytest.raises(SnapshotError, match="guest time, port 0x61 or interrupt line"):
        unpack(pack(PitState(now, control_b, line_driven, counters)))


def test_snapshot_whose_gate_2_is_not_port_61s_is_rejected() -> None:
    with pytest.raises(SnapshotError, match="counter 2: gate"):
        unpack(pack(state_with(0x34, 1, 2)._replace(control_b=1)))


def test_snapshot_at_the_end_of_time_is_whole() -> None:
    pit = Pit8254()
    pit.advance(1 << 70)
    pit.take_effects()
    state = pit.snapshot()
    assert unpack(state).now == MAX_TIME
    copy = Pit8254()
    copy.restore(state)
    assert copy.snapshot() == state
