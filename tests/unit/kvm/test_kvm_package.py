"""The package's façade: what it exports, and that importing it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kvmbox.kvm


def test_every_exported_name_can_be_loaded() -> None:
    assert all(getattr(kvmbox.kvm, name) is not None for name in kvmbox.kvm.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = kvmbox.kvm.Nonsense


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("kvmbox.kvm", ["ctypes", "dataclasses"]),
        # The run loop's start-up path: no dataclasses (exits), no guest memory, no devices.
        ("kvmbox.kvm.system", ["dataclasses", "kvmbox.kvm.exits", "kvmbox.base.memory", "kvmbox.devices"]),
    ],
)
def test_import_does_not_load_what_is_not_needed(module: str, absent: list[str]) -> None:
    program = f"import sys, {module}; print(*(m for m in {absent!r} if m in sys.modules))"

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout.split() == []
