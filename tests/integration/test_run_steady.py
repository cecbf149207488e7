"""Steady reads of a run: see docs/adr/steady-reads.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from kvmbox.remote.transport.ipc_table import TRANSPORTS
from tests.support.halves import half_of
from tests.support.real_mode import SHUTDOWN
from tests.support.runs import Images, Run, run_to_end

pytestmark = pytest.mark.kvm

LSR: Final = 0x3FD
STRINGS: Final = 20_000
WRITES_AND_STRINGS: Final = bytes.fromhex(
    "ba ff03 b9 0010 ee e2fd"  # mov dx,0x3ff; mov cx,0x1000; out dx,al; loop: the process may spin then
    "ba fd03 ec ec ec"  # mov dx,0x3fd; in al,dx: the guest listens
    "be 204e"  # mov si,20000
    "bf 0040 b9 4000 f36c 4e 75f5"  # mov di,0x4000; mov cx,64; rep insb; dec si; jnz
)


@pytest.mark.parametrize("ipc", TRANSPORTS)
def test_strings_of_a_steady_value_go_on_being_answered(images: Images, tmp_path: Path, ipc: str) -> None:
    # A process that is hardly asked falls asleep: its reply to the read that renews the value comes late.
    if half_of("compiled") is None:
        pytest.skip("compiled: not built")
    told = tmp_path / "told.json"
    guest = images.write(WRITES_AND_STRINGS + SHUTDOWN)
    status, _, messages = run_to_end(Run("--boot", "real", guest, "--ipc", ipc, "--json", told))
    assert status == 0, messages
    (strings,) = [one for one in json.loads(told.read_text())["ports"] if one["port"] == LSR]
    assert strings["count"] == STRINGS + 3
    assert strings["steady"] > 0.9 * STRINGS
