"""Which backend KVM has here, as `kvmbox doctor` tells it; the lab (tests/lab) says what it must be."""

from __future__ import annotations

import os
import subprocess

import pytest

from kvmbox.kvm.system import Kvm, is_pvm
from kvmbox.tools.warm.prepared_machines import MSR_TSC, reset_tsc
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


def test_tsc_of_a_machine_that_waited_begins_anew_on_all_cpus() -> None:
    with Kvm.open() as kvm, kvm.create_vm() as vm, vm.create_vcpu(0) as first, vm.create_vcpu(1) as second:
        if is_pvm(first):
            pytest.skip("a guest of PVM sees the TSC of the host")
        first.set_msrs({MSR_TSC: 1 << 40})

        reset_tsc([first, second])

        early, late = (vcpu.get_msrs([MSR_TSC])[MSR_TSC] for vcpu in (first, second))
        assert early < late < 1 << 36
