"""Which tests run in the lab where nobody names any.

Python is some twelve times slower in the emulated machine, so this is a choice: what depends on the backend
of KVM, and one run of everything that a run can be made of. Tests of models, protocol and policies need no
KVM, and run on the host.
"""

from __future__ import annotations

from typing import Final

QUICK: Final = (
    "tests/integration/test_backend.py",
    "tests/guests/test_guest_runs.py::test_guest_run_gives_status_and_output",
    "tests/integration/test_kvm_guest.py",
    "tests/integration/test_kvm_kick.py",
    "tests/integration/test_run_status.py",
    "tests/integration/test_run_designs.py",
    "tests/integration/test_run_restart.py",
    "tests/integration/test_audit_run.py",
)
"""What CI runs."""

EACH_VARIATION: Final = (
    "tests/integration/test_backend.py",
    "tests/integration/test_run_designs.py",
    "tests/integration/test_run_status.py::test_timeout_gives_124",
)
"""What a variation of the machine is tried with: seconds, not minutes."""
