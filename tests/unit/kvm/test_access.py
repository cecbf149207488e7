"""What helps a user to whom /dev/kvm is refused: by the group and the mode of the device."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kvmbox.base.errors import KvmError
from kvmbox.kvm.access import Device, access_hint
from kvmbox.kvm.system import Kvm

NAMES = {0: "root", 104: "kvm", 993: "virt", 65534: "nogroup"}


def hint(group: int, mode: int, *groups: int) -> str:
    return access_hint(Device("/dev/kvm", group, 0o20000 | mode), {1000, *groups}, NAMES.get)


@pytest.mark.parametrize(("group", "name"), [(104, "kvm"), (993, "virt")], ids=["usual name", "another name"])
def test_group_that_may_open_the_device_is_to_be_joined_by_its_name(group: int, name: str) -> None:
    assert (
        hint(group, 0o660) == f"add your user to the group {name} (usermod -aG {name} USER), and log in again"
    )


@pytest.mark.parametrize(("group", "mode"), [(0, 0o600), (0, 0o660), (104, 0o600), (104, 0o640)])
def test_device_that_no_group_of_users_may_open_needs_one(group: int, mode: int) -> None:
    found = hint(group, mode)

    assert f"/dev/kvm has mode {mode:04o} and the group {NAMES[group]}: as root, chgrp kvm /dev/kvm" in found
    assert "chmod 660" in found


def test_group_without_a_name_is_a_number() -> None:
    assert hint(77, 0o660) == "add your user to the group 77 of /dev/kvm; in a container, --group-add 77"


def test_group_that_the_user_has_is_not_to_be_joined() -> None:
    assert hint(104, 0o660, 104).startswith("your group kvm may open /dev/kvm: ")


def test_group_that_a_user_namespace_does_not_map_is_to_be_kept() -> None:
    assert "--group-add keep-groups" in hint(65534, 0o660)


def test_device_for_everybody_is_forbidden_by_something_else() -> None:
    assert "a security module" in hint(0, 0o666)


def refused(monkeypatch: pytest.MonkeyPatch, path: Path) -> str:
    def refuse(path: str, _flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(KvmError, match="Permission denied") as caught:
        Kvm.open(str(path))
    return str(caught.value.hint)


def test_device_that_is_refused_is_looked_at_for_the_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(0o600)

    assert f"{device} has mode 0600" in refused(monkeypatch, device)


def test_device_that_cannot_be_looked_at_has_a_hint_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "none" / "kvm"

    assert refused(monkeypatch, path) == f"make the directories of {path} searchable for this user"
