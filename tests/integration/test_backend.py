"""Which backend KVM has here, as `kvmbox doctor` tells it; the lab (tests/lab) says what it must be."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support.patience import patience
from tests.support.runs import KVMBOX

pytestmark = pytest.mark.kvm


def test_doctor_names_the_backend_of_this_host() -> None:
    done = subprocess.run(
        [*KVMBOX, "doctor"], capture_output=True, text=True, check=False, timeout=patience(60)
    )

    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "/dev/kvm" in line]
    expected = os.environ.get("KVMBOX_TEST_BACKEND")
    assert "backend unknown" not in line
    assert expected is None or f"backend {expected}:" in line
