"""Profiles for AppArmor, for `kvmbox policy --format apparmor`: what `jail.lsm` stacks. Pure.

The label of a process is the stack of what was in force and of its profile, and the kernel asks each profile
of a stack. So the spawner's allows what device processes need, too. Files that were open before are not asked
for again: that is how device processes keep pipes and pages that their profiles do not name.

The form is that of apparmor.d(5), of AppArmor 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from kvmbox.jail.lsm import PREFIX

HEAD: Final = """\
# Profiles of kvmbox for AppArmor, written by 'kvmbox policy --format apparmor'. Load them as root:
#   kvmbox policy --format apparmor | apparmor_parser --replace
# Each process of a run takes its own when it starts. --require lsm-label and --require vmm-label insist.

abi <abi/4.0>,
"""

# A label is a stack, written 'one//&other'; an asterisk alone does not go beyond a slash.
CHANNEL: Final = ("unix type=seqpacket,", "the channel, and the way to the spawner")
KILLED: Final = ("signal (receive),", "any process may end it that may by other rules")

SPAWNER: Final = (
    CHANNEL,
    KILLED,
    (f"signal (send) peer=**{PREFIX}**,", "to its device processes"),
    (f"change_profile -> &{PREFIX}*,", "device processes take their profiles"),
    ("capability setuid,", "as root only: ids that own nothing"),
    ("capability setgid,", ""),
    ("capability setpcap,", "dropping the rest of them"),
    ("capability kill,", "device processes that have such ids"),
    ("userns,", "in which such an id has no name"),
)
DEVICE: Final = (CHANNEL, KILLED)
VMM: Final = (
    ("/** r,", "Python's modules, /proc, sources for reports; Landlock is narrower"),
    ("/dev/kvm rw,", "opened before, by a process that had no profile or has one"),
    ("unix,", "the spawner; sockets that --gdb or --vnc listen on"),
    ("network inet stream,", "the same"),
    ("network inet6 stream,", "the same"),
    KILLED,
    (f"signal (send) peer=**{PREFIX}**,", "to its device processes"),
    ("ptrace (read) peer=*,", "whether a silent device process is starved, from /proc"),
    ("capability kill,", "device processes that have other ids"),
    ("capability sys_nice,", "moving them to other CPUs"),
)


def as_apparmor(about: Mapping[str, str]) -> str:
    """The profiles of these processes, each with what it is for."""
    rules = {"spawner": SPAWNER, "vmm": VMM}
    blocks = [_profile(one, what, rules.get(one, DEVICE)) for one, what in about.items()]
    return "\n".join([HEAD, *blocks])


def _profile(process: str, about: str, rules: Iterable[tuple[str, str]]) -> str:
    width = max(len(rule) for rule, _ in rules)
    lines = [f"  {rule:<{width}}  # {why}".rstrip(" #") for rule, why in rules]
    return "\n".join([f"# {about}", f"profile {PREFIX}{process} {{", *lines, "}", ""])
