"""A triple fault on AMD-V, where KVM has reset the CPU before kvmbox hears of it: the lab runs this."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.guest_table import backend
from tests.support.runs import Run, run_to_end

pytestmark = pytest.mark.kvm


def test_triple_fault_that_has_reset_the_cpu_says_so_and_shows_what_is_left(tmp_path: Path) -> None:
    if backend() != "svm":
        pytest.skip("KVM's backend here is not svm: make test-svm runs it")
    facts = tmp_path / "facts.json"
    status, _, messages = run_to_end(Run("triplefault", "--json", str(facts)))
    assert status == 6
    lines = messages.splitlines()
    assert lines[1].startswith("hint: KVM on AMD-V resets a CPU before it reports the triple fault")
    assert lines[2] == "The registers of the triple fault are lost: KVM on AMD-V has reset the CPU."
    assert lines[3].startswith("Last access to a device: by RIP 0x10")
    assert "RIP=0xfff0" not in messages
    assert "Last accesses to devices, the newest last:" in lines
    (cpu,) = json.loads(facts.read_text())["cpus"]
    assert cpu["is_lost"]
