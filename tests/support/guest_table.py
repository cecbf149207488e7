"""What tests that run the table of bundled guests (guests/expectations.toml) share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from kvmbox.kvm import Kvm


@cache
def backend() -> str:
    """What KVM runs guests with on this host: "vmx", "svm", "pvm" or "unknown"."""
    with Kvm.open() as kvm:
        return kvm.backend()


def skip_where_it_cannot_run(run: Mapping[str, Any]) -> None:
    """Skip the test, with the reason, if this run of the table needs what the host's KVM does not have."""
    if "needs" in run and backend() == "pvm":
        pytest.skip(f"needs {run['needs']}, and KVM's backend here is {backend()}: make test-svm runs it")
