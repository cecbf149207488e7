"""What can be different about the lab's machine: each variation is a host that somebody has."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

USER_ID: Final = 1000
KVMBOX: Final = shlex.join([sys.executable, "-c", "from kvmbox.cli.entry import entry_point; entry_point()"])


@dataclass(slots=True)
class Host:
    """The machine to be: variations change it before it boots."""

    cpus: int = 2
    memory_mib: int = 4096
    parameters: list[str] = field(default_factory=list)
    """Words for the kernel's command line."""
    preparation: list[str] = field(default_factory=list)
    """Shell commands, as root, before the tests; one that fails ends the run."""
    packages: list[str] = field(default_factory=list)
    """What the preparation needs of Debian, unpacked below .lab."""
    user: int = 0
    """Who runs the tests."""


@dataclass(frozen=True, slots=True)
class Variation:
    """One difference, and how it is made."""

    name: str
    meaning: str
    change: Callable[[Host], None]


def apply(names: Sequence[str]) -> Host:
    """A host with all of the variations `names`, each a key of `VARIATIONS`."""
    host = Host()
    for name in names:
        VARIATIONS[name].change(host)
    return host


def _no_landlock(host: Host) -> None:
    host.parameters.append("lsm=lockdown,yama,bpf")
    host.preparation.append("! grep -q landlock /sys/kernel/security/lsm")


def _no_user_namespaces(host: Host) -> None:
    host.preparation.append("echo 0 >/proc/sys/user/max_user_namespaces")


def _one_cpu(host: Host) -> None:
    host.cpus = 1


def _user(host: Host) -> None:
    host.user = USER_ID
    host.preparation.append(f"chown {USER_ID} /dev/kvm")
    # Python may lie in a home directory that only its owner may enter.
    parents = Path(sys.executable).resolve().parents
    host.preparation.append(shlex.join(["chmod", "a+x", *map(str, parents)]))


def _cgroup(host: Host) -> None:
    group = "/sys/fs/cgroup/lab"
    host.preparation += [
        "echo '+memory +pids +cpu' >/sys/fs/cgroup/cgroup.subtree_control",
        f"mkdir {group}",
        f"echo 384M >{group}/memory.max",
        f"echo 64 >{group}/pids.max",
        f"echo '50000 100000' >{group}/cpu.max",
        f"echo $$ >{group}/cgroup.procs",
    ]


def _apparmor(host: Host) -> None:
    host.packages.append("apparmor")
    tools, profiles = ".lab/apparmor", "/run/lab/tmp/profiles"
    host.preparation += [
        "grep -q apparmor /sys/kernel/security/lsm",
        f"{KVMBOX} policy --format apparmor >{profiles}",
        f"{tools}/usr/sbin/apparmor_parser --base {tools}/etc/apparmor.d --skip-cache --replace {profiles}",
    ]


def _selinux(host: Host) -> None:
    host.packages += ["secilc", "libsepol2"]
    host.parameters += ["security=selinux", "selinux=1", "enforcing=1"]
    module = "/run/lab/tmp/kvmbox.cil"
    host.preparation += [
        "grep -q selinux /sys/kernel/security/lsm",
        f"{KVMBOX} policy --format selinux >{module}",
        shlex.join([sys.executable, "-m", "tests.lab.selinux", module, ".lab"]),
    ]


VARIATIONS: Final = {
    variation.name: variation
    for variation in (
        Variation("no-landlock", "a kernel without Landlock", _no_landlock),
        Variation("no-user-namespaces", "user.max_user_namespaces is 0", _no_user_namespaces),
        Variation("one-cpu", "one CPU", _one_cpu),
        Variation("cgroup", "384 MiB of memory, 64 tasks, half a CPU", _cgroup),
        Variation("apparmor", "the profiles of kvmbox are loaded", _apparmor),
        Variation("selinux", "the policy of kvmbox is loaded and enforced", _selinux),
        Variation("user", "an unprivileged user who may open /dev/kvm", _user),
    )
}
