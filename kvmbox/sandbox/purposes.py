"""What each layer of the sandbox is for, in words. No run loads it."""

from __future__ import annotations

from typing import Final

from kvmbox.jail import layers

PURPOSES: Final = {
    layers.SECCOMP: "system calls: read and write on the channel, memory, exit",
    layers.NO_NEW_PRIVS: "no exec gains privileges",
    layers.CLOSED_DESCRIPTORS: "nothing open but the channel",
    layers.RLIMITS: "bounded memory; no new descriptors, processes, files or core dumps",
    layers.NOT_DUMPABLE: "no ptrace, no /proc/PID/mem, no core by the same user",
    layers.DEATH_SIGNAL: "dies with the spawner, which dies with the VMM",
    layers.CAPABILITIES: "no capability in any set",
    layers.EMPTY_ENVIRONMENT: "no environment variable inherited",
    layers.LANDLOCK: "no path of the file system",
    layers.LANDLOCK_NET: "no TCP bind or connect",
    layers.LANDLOCK_SCOPES: "no abstract socket and no signal to anything outside",
    layers.OTHER_UID: "a user id that owns nothing, in no group (as root only)",
    layers.USER_NS: "the host's capabilities out of reach; no id mapped, so no namespace below it",
    layers.MOUNT_NS: "an empty, read-only root directory, without /proc",
    layers.PID_NS: "no process outside can be named; all die with the spawner, its PID 1",
    layers.NET_NS: "no network interface that is up, no abstract socket of the host",
    layers.IPC_NS: "no System V object and no message queue of the host",
    layers.UTS_NS: "the host's name cannot be changed",
    layers.CGROUP_NS: "the host's cgroups have no path",
    layers.OWN_UID: "a user id that no other device process has (as root only)",
    layers.IPC_LIMITS: "no System V object at all, whose memory no rlimit bounds",
    layers.LABEL: "what its policy of AppArmor or SELinux lists and nothing else, where one is loaded",
    layers.VMM_SECCOMP: (
        "kvmbox itself: no exec, no fork, no socket, no file to write to, no executable memory"
    ),
    layers.VMM_LANDLOCK: "kvmbox itself: no file but Python's own and /proc, to read; no TCP",
    layers.VMM_CAPABILITIES: (
        "kvmbox itself: no capability, but where device processes could not be ended otherwise"
    ),
    layers.VMM_SCOPES: "kvmbox itself: no signal and no abstract socket to anything but its own processes",
    layers.VMM_LABEL: "kvmbox itself: what its policy of AppArmor or SELinux lists, where one is loaded",
}
