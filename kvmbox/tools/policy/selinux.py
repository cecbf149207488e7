"""A policy module for SELinux, for `kvmbox policy --format selinux`: the types that `jail.lsm` takes. Pure.

Theory of operation
-------------------
A device type has a type of its own, and so have the spawner and the VMM. Whoever starts kvmbox (a *caller*)
may change to any of them, the spawner only to those of device processes, and these and the VMM to none: they
cannot change their context at all.

What was open before the change is asked for again at each use, unlike with AppArmor. So a type lists what
its processes hold: sockets, pipes and the shared page, made by the caller, the VMM or the spawner. It lists
`read` and `write` and not `open`: what a process was not given, it does not get.

Between processes of two machines the constraint holds, whatever the rules say: a process of kvmbox reaches
another one, its sockets or pipes only if its categories include those of the other.

Types of a distribution are named in *optional* blocks, each of which counts only where the host's policy has
all that it names. The text is Common Intermediate Language: any block may name what another one declares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from kvmbox.jail.lsm import type_of

Rules = tuple[tuple[str, str, str], ...]
"""The target, a class with its permissions, and what they are for."""

HEAD: Final = """\
; Policy of kvmbox for SELinux, written by 'kvmbox policy --format selinux'. Load it as root:
;   kvmbox policy --format selinux >kvmbox.cil; semodule --install kvmbox.cil
; Each process of a run takes its own type when it starts. --require lsm-label and --require vmm-label insist.

(typeattribute kvmbox_process)
(typeattribute kvmbox_device)
(typeattribute kvmbox_caller)
(typeattribute kvmbox_opener)
(typeattribute kvmbox_file)
(typeattribute kvmbox_code)
(typeattribute kvmbox_node)
(typeattribute kvmbox_disk)
(typeattributeset kvmbox_opener (or kvmbox_caller kvmbox_process))
"""

CALLERS: Final = {
    "unconfined_t": "unconfined_r",
    "unconfined_service_t": "system_r",
    "initrc_t": "system_r",
    "sysadm_t": "sysadm_r",
    "staff_t": "staff_r",
    "user_t": "user_r",
}
"""Who may start kvmbox, with its role, which kvmbox keeps."""

MEMBERS: Final = (
    (
        "kvmbox_file",
        ("non_security_file_type", "noxattrfs", "tmpfs_t"),
        "images, recordings, the shared page",
    ),
    (
        "kvmbox_code",
        ("lib_t", "usr_t", "bin_t", "src_t", "user_home_t", "proc_t"),
        "modules of Python, /proc",
    ),
    ("kvmbox_node", ("kvm_device_t", "null_device_t", "ttynode", "ptynode", "tun_tap_device_t"), "/dev"),
    ("kvmbox_disk", ("fixed_disk_device_t",), "disks"),
    ("domain", ("kvmbox_process",), "what the host's policy lets every process do, and ends and shows"),
    ("set_curr_context", ("kvmbox_spawner_t",), "what it allows few: to change the own type"),
    ("fixed_disk_raw_read", ("kvmbox_vmm_t",), "and to read disks"),
    ("fixed_disk_raw_write", ("kvmbox_vmm_t",), "and to write them"),
)
"""By attribute, ours or a distribution's: the attributes and types that belong to it, and what it is."""

CONSTRAINED: Final = (
    "process sigkill sigstop signull signal ptrace getsched setsched getattr getrlimit setrlimit "
    "dyntransition",
    "file read write",
    "fifo_file read write",
    "unix_stream_socket read write connectto",
)
"""What no process may do to one of another machine."""

PROC: Final = ("dir read open getattr search", "file read open getattr ioctl", "lnk_file read getattr")
SOCKET: Final = "read write getattr getopt setopt shutdown accept"

CALLER: Final = (
    ("kvmbox_process", "process all", "it starts, watches and ends them"),
    *(("kvmbox_process", permissions, "/proc") for permissions in PROC),
    ("kvmbox_process", "fd use", "what they hand over"),
    ("kvmbox_process", f"unix_stream_socket {SOCKET} connectto", "--gdb, --vnc and such"),
    ("kvmbox_process", "fifo_file read write getattr", "their output"),
)
GIVEN: Final = (
    ("kvmbox_opener", "fd use", "what it was given"),
    ("kvmbox_opener", "unix_stream_socket read write getattr", "a channel of sockets"),
    ("kvmbox_opener", "fifo_file read write", "a channel of pipes"),
)
DEVICE: Final = (
    *GIVEN,
    ("self", "process getrlimit setrlimit setsched", "its limits and its CPU, while it starts"),
)
SPAWNER: Final = (
    *GIVEN,
    (
        "self",
        "process fork sigkill getcap setcap setcurrent setrlimit",
        "device processes begin as copies of it",
    ),
    ("self", "unix_stream_socket create getattr", "the reports of device processes"),
    ("kvmbox_device", "process dyntransition sigkill", "device processes take their types, and die"),
    ("kvmbox_file", "file read write getattr map", "the shared page"),
    ("self", "capability setuid setgid setpcap kill", "as root only: ids that own nothing"),
    ("self", "cap_userns setuid setgid setpcap kill", "the same, in a user namespace"),
    ("self", "user_namespace create", "in which such an id has no name"),
)
VMM: Final = (
    *GIVEN,
    ("self", "process fork signal signull getsched setsched", "its threads"),
    ("self", "unix_stream_socket create", "the channel of a device process that replaces another"),
    ("kvmbox_process", "process signal sigkill getsched setsched", "device processes, and their CPUs"),
    *(("kvmbox_process", permissions, "whether a silent one is starved, from /proc") for permissions in PROC),
    ("kvmbox_code", "dir read open getattr search", "Landlock is narrower"),
    ("kvmbox_code", "file read open getattr ioctl map", "the same"),
    ("kvmbox_code", "lnk_file read getattr", "the same"),
    ("kvmbox_file", "file read write append getattr setattr lock ioctl map", "the files of the run"),
    ("kvmbox_node", "chr_file read write append getattr ioctl map", "KVM, and the terminal"),
    ("kvmbox_opener", f"unix_stream_socket {SOCKET}", "who connects"),
    ("kvmbox_opener", f"unix_dgram_socket {SOCKET}", "networks"),
    ("kvmbox_opener", f"tcp_socket {SOCKET}", "who connects"),
    ("kvmbox_opener", f"udp_socket {SOCKET}", "networks"),
    ("kvmbox_disk", "blk_file read write getattr lock ioctl", "disks that are no files"),
    ("self", "capability kill sys_nice", "as root only: processes of other ids"),
    ("self", "cap_userns kill", "the same, in a user namespace"),
)
NEWER: Final = {"user_namespace"}
"""Classes that not every policy has. Where one is missing, the kernel does not ask for it."""


def as_selinux(about: Mapping[str, str]) -> str:
    """The module with the types of these processes, each with what it is for."""
    rules = {"spawner": SPAWNER, "vmm": VMM}
    blocks = [
        HEAD,
        *_surroundings(),
        _block("what each device process may do", _rules("kvmbox_device", DEVICE)),
    ]
    for process, what in about.items():
        name = type_of(process)
        attribute = "kvmbox_process" if process in rules else "kvmbox_device"
        lines = [f"(type {name})", f"(typeattributeset {attribute} ({name}))"]
        blocks.append(_block(what, [*lines, *_rules(name, rules.get(process, ()))]))
    return "\n".join(blocks)


def _surroundings() -> list[str]:
    """The caller, what the host's policy calls the files of a run, and the constraint between machines."""
    apart = "(or (dom h1 h2) (or (neq t1 kvmbox_process) (neq t2 kvmbox_process)))"
    callers = [
        _optional(caller, f"(typeattributeset kvmbox_caller ({caller}))", f"(roletype {role} kvmbox_process)")
        for caller, role in CALLERS.items()
    ]
    blocks = [_block("the caller", [*callers, *_rules("kvmbox_caller", CALLER)])]
    for attribute, members, about in MEMBERS:
        lines = [
            _optional(f"{attribute}_{one}", f"(typeattributeset {attribute} ({one}))") for one in members
        ]
        blocks.append(_block(about, lines))
    lines = [f"(mlsconstrain {_permissions(one)} {apart})" for one in CONSTRAINED]
    blocks.append(_block("machines are kept apart: source and target have the same categories", lines))
    lines = [
        "(typeattributeset kvmbox_process (kvmbox_device))",
        "(dontaudit kvmbox_process self (process (setcurrent)))",
        "(dontaudit kvmbox_process kvmbox_caller (process (dyntransition)))",
    ]
    blocks.append(_block("what each process tries, to see that the policy is enforced", lines))
    return blocks


def _rules(source: str, rules: Rules) -> list[str]:
    lines = []
    for target, permissions, why in rules:
        line = f"(allow {source} {target} {_permissions(permissions)})"
        name = permissions.partition(" ")[0]
        lines.append(f"{_optional(name, line) if name in NEWER else line} ; {why}")
    return lines


def _permissions(words: str) -> str:
    name, _, permissions = words.partition(" ")
    return f"({name} ({permissions}))"


def _optional(name: str, *statements: str) -> str:
    return f"(optional kvmbox_for_{name} {' '.join(statements)})"


def _block(about: str, lines: Iterable[str]) -> str:
    return "\n".join([f"; {about}", *lines, ""])
