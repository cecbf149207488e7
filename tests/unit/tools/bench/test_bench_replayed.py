"""`kvmbox bench --exit none`: exits that are replayed from memory reach the devices, and are timed."""

from __future__ import annotations

from typing import Final

import pytest

from kvmbox.base import layout
from kvmbox.base.compiled import is_compiled
from kvmbox.base.errors import UsageError
from kvmbox.tools.bench import replay_tables, replayed
from kvmbox.tools.bench.measuring_plan import IPCS, NONE
from kvmbox.tools.bench.replay_script import ACCESSES, COALESCED, Access, in_, out
from kvmbox.tools.bench.replayed import path_to

compiled_only = pytest.mark.skipif(not is_compiled(), reason="pure Python")
SCR: Final = layout.COM_PORTS["COM1"] + 7


@compiled_only
def test_replayed_writes_reach_the_model_each_time() -> None:
    printed: list[bytes] = []
    with path_to(NONE, output=printed.append) as path:
        path.play(Access("", (out(layout.COM_PORTS["COM1"], ord("x")), in_(SCR))), 5)
        assert b"".join(printed) == b"xxxxx"


@compiled_only
def test_coalesced_writes_reach_the_model_when_the_ring_is_full_and_at_the_end() -> None:
    printed: list[bytes] = []
    with path_to(NONE, output=printed.append) as path:
        path.play(Access("", (out(layout.DEBUGCON_PORTS[0], ord("y"), coalesced=True),)), 400)
        assert b"".join(printed) == b"y" * 400
        assert len(printed) < 10


@compiled_only
@pytest.mark.parametrize(("access", "is_late"), [(ACCESSES[-2], True), (ACCESSES[-1], False)])
def test_interrupt_driven_output_is_late_but_with_all_interrupts_on(access: Access, is_late: bool) -> None:
    printed: list[bytes] = []
    with path_to(NONE, output=printed.append) as path:
        assert path.play(access, 160) == 160
        assert b"".join(printed) == b"." * 160
        assert len(printed) < 20 if is_late else len(printed) == 160


@compiled_only
@pytest.mark.parametrize("ipc", [NONE, *IPCS])
def test_every_access_takes_some_time_over_each_ipc(ipc: str) -> None:
    with path_to(ipc) as path:
        for access in ACCESSES:
            assert path.time(access, 20) > 0


def test_only_the_compiled_hot_path_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVMBOX_PURE", "1")
    with pytest.raises(UsageError, match="pure Python"):
        replayed.measure(1, 1)


def test_table_adds_what_was_measured_to_exits_of_other_hosts() -> None:
    rows = {access.title: 100.0 * number for number, access in enumerate(ACCESSES, 5)}
    added, predicted = replay_tables.tables({NONE: rows, "shm": rows})
    assert added.lines[0] == (ACCESSES[0].title, "500 ns", "500 ns")
    assert "prediction, not measured" in predicted.title
    assert predicted.lines[0] == ("1 µs", "1.50 µs", "1.50 µs")


def test_words_of_exits_are_those_of_kvm_run() -> None:
    assert in_(0x3FD, 4) == (1 << 32 | 0x3FD << 16 | 4 << 8, 0)
    assert out(0x70, 10, coalesced=True) == (1 << 32 | 0x70 << 16 | 1 << 8 | 1, 10 | COALESCED)
