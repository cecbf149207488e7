"""Opening /dev/kvm: every way it can fail says what, on what, why, and what to do. Needs no KVM."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from kvmbox.base.errors import KvmError
from kvmbox.kvm import ioctl as io
from kvmbox.kvm import uapi
from kvmbox.kvm.system import REQUIRED_CAPABILITIES, Kvm


def _open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_open_missing_device_names_path_reason_and_hint(tmp_path: Path) -> None:
    path = str(tmp_path / "kvm")

    with pytest.raises(KvmError) as caught:
        Kvm.open(path)

    assert str(caught.value) == f"cannot open {path}: No such file or directory"
    assert "kvm_intel" in (caught.value.hint or "")
    assert caught.value.exit_status == 4
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EPERM, "container"),
        (errno.ENODEV, "backend"),
        (errno.ENXIO, "backend"),
        (errno.EMFILE, None),
    ],
)
def test_open_refused_gives_hint_for_errno(
    monkeypatch: pytest.MonkeyPatch, number: int, hint: str | None
) -> None:
    def refuse(path: str, _flags: int) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(KvmError) as caught:
        Kvm.open()

    assert str(caught.value) == f"cannot open /dev/kvm: {os.strerror(number)}"
    assert caught.value.hint is None if hint is None else hint in str(caught.value.hint)


def test_open_of_another_device_says_it_is_not_kvm_and_leaks_nothing() -> None:
    before = _open_descriptors()

    with pytest.raises(KvmError) as caught:
        Kvm.open(os.devnull)

    assert str(caught.value) == (
        "/dev/null is not a KVM device: ioctl KVM_GET_API_VERSION: Inappropriate ioctl for device"
    )
    assert _open_descriptors() == before


class _FakeKernel:
    """Stands in for the ioctl function: answers by request, on a descriptor of /dev/null."""

    def __init__(self, version: int = uapi.KVM_API_VERSION, absent: frozenset[int] = frozenset()) -> None:
        self.version = version
        self.absent = absent

    def __call__(self, descriptor: int, request: int, argument: Any = None) -> int:
        if request == io.KVM_GET_API_VERSION:
            return self.version
        assert request == io.KVM_CHECK_EXTENSION
        return 0 if argument in self.absent else 1


def test_open_other_api_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "ioctl", _FakeKernel(version=13))
    before = _open_descriptors()

    with pytest.raises(KvmError, match=r"speaks version 13 of the KVM API, kvmbox needs 12"):
        Kvm.open(os.devnull)

    assert _open_descriptors() == before


def test_open_without_required_capabilities_names_each(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = frozenset({uapi.KVM_CAP_IMMEDIATE_EXIT, uapi.KVM_CAP_IRQCHIP})
    monkeypatch.setattr(io, "ioctl", _FakeKernel(absent=absent))

    with pytest.raises(KvmError) as caught:
        Kvm.open(os.devnull)

    assert str(caught.value) == "/dev/null lacks KVM_CAP_IRQCHIP, KVM_CAP_IMMEDIATE_EXIT"
    assert caught.value.hint is not None


def test_required_capabilities_carry_the_names_of_their_constants() -> None:
    assert all(getattr(uapi, name) == number for name, number in REQUIRED_CAPABILITIES.items())


def test_close_twice_closes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "ioctl", _FakeKernel())
    before = _open_descriptors()
    kvm = Kvm.open(os.devnull)

    kvm.close()
    kvm.close()

    assert _open_descriptors() == before
