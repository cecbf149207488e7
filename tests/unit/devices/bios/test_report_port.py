"""The port of the built-in BIOS: what it sends, what ends the run, and nonsense."""

from __future__ import annotations

import pytest

from kvmbox.contract.model import HostOutput, SnapshotError, Stop
from kvmbox.devices.bios.report_port import AT, ENDING, REPORT, WHAT, BiosReport


def test_report_has_the_place_and_what_is_missing() -> None:
    model = BiosReport()

    model.write(0, AT, 4, 0x07C0_002E)
    assert model.take_effects() == []
    model.write(0, WHAT, 4, 0x0013_0800)

    assert model.take_effects() == [HostOutput(REPORT.pack(0x07C0_002E, 0x0013_0800))]


@pytest.mark.parametrize("kind", [ENDING, 0xFF])
def test_report_that_ends_the_run_is_followed_by_a_stop(kind: int) -> None:
    model = BiosReport()

    model.write(0, WHAT, 4, kind << 24)

    assert model.take_effects() == [HostOutput(REPORT.pack(0, kind << 24)), Stop()]


@pytest.mark.parametrize("size", [1, 2, 8])
def test_only_whole_registers_are_written_and_nothing_is_read(size: int) -> None:
    model = BiosReport()

    for offset in range(-1, 9):
        model.write(0, offset, size, (1 << 64) - 1)
        assert model.read(0, offset, size) == (1 << 8 * size) - 1
    assert model.take_effects() == []
    assert model.snapshot() == BiosReport().snapshot()


def test_snapshot_keeps_the_place_and_a_reset_forgets_it() -> None:
    model, copy = BiosReport(), BiosReport()
    model.write(0, AT, 4, 0x1234)

    copy.restore(model.snapshot())
    assert copy.snapshot() == model.snapshot() != BiosReport().snapshot()
    copy.reset(0)
    assert copy.snapshot() == BiosReport().snapshot()
    for state in (b"", b"BRP\x01", b"BRP\x02" + bytes(4), b"BRP\x01" + bytes(5)):
        with pytest.raises(SnapshotError):
            copy.restore(state)
