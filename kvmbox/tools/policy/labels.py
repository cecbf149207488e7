"""Policies for the host's mandatory access control: who has a label, and who writes what for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kvmbox.jail.label import ANY_DEVICE
from kvmbox.tools.policy.apparmor import as_apparmor
from kvmbox.tools.policy.process_policies import Confinement
from kvmbox.tools.policy.selinux import as_selinux

WRITERS: Final = {"apparmor": as_apparmor, "selinux": as_selinux}


def as_policy(form: str, confinements: Iterable[Confinement]) -> str:
    """The policy of all these, in a form of `WRITERS`.

    The threads of the VMM have one label. Beside that of the spawner is that of device types without a name.
    """
    about: dict[str, str] = {}
    for one in confinements:
        if one.process == "spawner":
            about[ANY_DEVICE] = "device process of a model that a user wrote"
        if one.process.startswith("vmm-"):
            about["vmm"] = "kvmbox itself, once it is set up"
        else:
            about[one.process] = one.about
    return WRITERS[form](about)
