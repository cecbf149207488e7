"""What tests need of the host: files with a certain content, hardware virtualization."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from kvmbox.base.regular_file import open_regular_file
from kvmbox.kvm.system import Kvm
from kvmbox.tools.smoke.suite.test_case import Test

MOST_CHECKED: Final = 4096


def why_skipped(test: Test, *, hardware: Callable[[], bool] | None = None) -> str | None:
    """Why `test` is not run here, or None. `hardware` is `has_hardware_virtualization` of where it boots."""
    if test.skip is not None:
        return test.skip
    for path, value in test.checks:
        if _content(path) != value:
            return f"{path} is not {value}"
    if "hardware-virtualization" in test.needs and not (hardware or has_hardware_virtualization)():
        return "needs hardware virtualization"
    return None


def _content(path: str) -> str | None:
    """The text of a small file without the line end, as a shell's $(cat FILE); None if it cannot be read."""
    try:
        with open(open_regular_file(path), "rb", buffering=0) as file:
            return file.read(MOST_CHECKED).decode("utf-8", "replace").rstrip("\n")
    except OSError:
        return None


@cache
def has_hardware_virtualization() -> bool:
    """Whether this host's KVM has VMX or SVM below it. Raises KvmError where there is no usable /dev/kvm."""
    with Kvm.open() as kvm:
        return kvm.backend() in ("vmx", "svm")


def check_kvm() -> None:
    """Refuse to begin where no guest can run. Raises KvmError."""
    Kvm.open().close()
