"""The instructions that `kvmbox doctor --cpu` lets a guest try: bytes and text say the same."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kvmbox.kvm.cpuid.backend_limits import PVM
from kvmbox.kvm.cpuid.feature_probes import PROBES
from kvmbox.kvm.cpuid.features import FEATURES


def test_each_feature_is_tried_once_and_known() -> None:
    names = [probe.feature for probe in PROBES]
    assert len(set(names)) == len(names)
    assert set(names) <= set(FEATURES)


def test_what_a_backend_is_said_not_to_run_can_be_tried() -> None:
    tried = {probe.feature for probe in PROBES}
    assert set(PVM) - tried == {"hle"}  # prefixes of other instructions, of RTM's kind


def test_bytes_are_the_assemblers(tmp_path: Path) -> None:
    for tool in ("as", "objcopy"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} not found: nothing to compare with")
    source, binary = tmp_path / "probes.o", tmp_path / "probes.bin"
    # Each one behind its number, and padded to the same length.
    text = "".join(f".org {64 * at}\n{probe.text}\n" for at, probe in enumerate(PROBES))
    subprocess.run(["as", "--64", "-o", source, "-"], input=text.encode(), check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", source, binary], check=True)
    data = binary.read_bytes()
    for at, probe in enumerate(PROBES):
        code = bytes.fromhex(probe.code)
        assert data[64 * at : 64 * at + len(code)] == code, probe.text
        assert not data[64 * at + len(code) : 64 * (at + 1)].strip(b"\0"), probe.text
