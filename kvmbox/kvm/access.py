"""Why /dev/kvm may not be opened, and what to do about it: by its owner, its group and its mode. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from stat import S_IMODE
from typing import Final

from kvmbox.base.value_classes import Value

_GROUP_ACCESS: Final = 0o060
_OTHERS_ACCESS: Final = 0o006
_ROOT: Final = 0
_UNMAPPED: Final = 65534
"""What a user namespace shows of groups that are not mapped: /proc/sys/kernel/overflowgid."""


class Device(Value):
    """What stat says of the device: the group's number, and the mode."""

    path: str
    group: int
    mode: int


def access_hint(device: Device, groups: Collection[int], name_of: Callable[[int], str | None]) -> str:
    """What helps a process with these `groups` to which `device` is refused. `name_of` names a group."""
    path, mode = device.path, S_IMODE(device.mode)
    name = name_of(device.group)
    if mode & _OTHERS_ACCESS == _OTHERS_ACCESS:
        return f"{path} has mode {mode:04o}: a security module or the rules of a container forbid the access"
    if mode & _GROUP_ACCESS != _GROUP_ACCESS or device.group == _ROOT:
        return (
            f"{path} has mode {mode:04o} and the group {name or device.group}: as root, chgrp kvm {path} and"
            f" chmod 660 {path}, and add your user to the group kvm"
        )
    if device.group in groups:
        return f"your group {name or device.group} may open {path}: an access list or a container forbids it"
    if device.group == _UNMAPPED:
        return f"this container does not have the group of {path}: pass it in (--group-add keep-groups)"
    if name is None:
        return (
            f"add your user to the group {device.group} of {path}; in a container, --group-add {device.group}"
        )
    return f"add your user to the group {name} (usermod -aG {name} USER), and log in again"
