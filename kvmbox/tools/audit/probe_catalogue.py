"""The catalogue: what each probe tries, at what it is aimed, and how audit sees that it succeeded.

A probe is one attack of the payload. Its success is judged from outside, by what it brought back or by what
it did to the scene: a system call that returned 0 but reached only a namespace of its own is no escape.
Every probe is harmless where it succeeds, and bounded: 64 processes, one gibibyte reserved of which 64 KiB
are touched, a fraction of a second of CPU; loopback, own files and own processes only.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.tools.audit.accounting import cpu_limited
from kvmbox.tools.audit.attack_result import Ended, Result
from kvmbox.tools.audit.attacks.memory_calls import ANSWER, MIB, MOST
from kvmbox.tools.audit.attacks.processes import BOMB, EXECUTED_STATUS
from kvmbox.tools.audit.audit_setup import Scene
from kvmbox.tools.audit.forgeries import FORGERIES
from kvmbox.tools.audit.forgery import Forgery

Judge = Callable[[Scene, Result], bool]
Given = Callable[[Scene], Mapping[str, str]]


def _did(_scene: Scene, result: Result) -> bool:
    return result.ended is Ended.FINISHED


def _brought_something(_scene: Scene, result: Result) -> bool:
    return result.ended is Ended.FINISHED and bool(result.evidence)


def _brought_secret(scene: Scene, result: Result) -> bool:
    return scene.secret.encode() in result.evidence


def _brought(expected: str) -> Judge:
    return lambda _scene, result: result.ended is Ended.FINISHED and result.evidence == expected.encode()


def _seen(look: Callable[[Scene], bool]) -> Judge:
    return lambda scene, result: result.ended is Ended.FINISHED and look(scene)


def _executed(_scene: Scene, result: Result) -> bool:
    return result.ended is Ended.EXITED and result.number == EXECUTED_STATUS


def _brought_size(scene: Scene, result: Result) -> bool:
    return result.ended is Ended.FINISHED and result.evidence == b"%d" % scene.image.stat().st_size


def _brought_pid(_scene: Scene, result: Result) -> bool:
    return result.ended is Ended.FINISHED and result.evidence.isdigit() and int(result.evidence) > 0


def _renamed_host(scene: Scene, result: Result) -> bool:
    return result.ended is Ended.FINISHED and scene.same_namespace(result.pid, "uts")


def _brought_cgroup_path(_scene: Scene, result: Result) -> bool:
    """A path that is not the root, and that audit's own cgroups have."""
    paths = {line.split(b":", 2)[2] for line in Path("/proc/self/cgroup").read_bytes().splitlines()}
    return any(path in result.evidence for path in paths if path != b"/")


def _burnt(_scene: Scene, result: Result) -> bool:
    return result.ended is Ended.FINISHED and not cpu_limited(result.pid)


def _brought_segment(scene: Scene, result: Result) -> bool:
    return result.ended is Ended.FINISHED and scene.has_segment(int(result.evidence))


class Probe(Value):
    """One way to try.

    `given` adds to what every attack is told. `sibling`: it is aimed at another device process, and
    effective if that one's secret comes back, or if it dies of the signal. `strict_only`: only strict mode
    claims to stop it. `open_reason`: why no layer does, known and documented; None where one must.
    `unsuccessful`: what it means that every call succeeded and nothing was got by it. `plants`: where
    descriptors need not be closed, one more than the channel's is left open for it. `on_channel`: it is
    made on the VMM's own channel. `ipc`: it needs this one, whatever the audit is of. `forgery`: what it does
    as a disk, if it is one: then it is tried with processes of that type.
    """

    name: str
    group: str
    tries: str
    attack: str
    effective: Judge = _did
    given: Given = lambda _scene: {}
    sibling: bool = False
    strict_only: bool = False
    open_reason: str | None = None
    unsuccessful: str = "came to nothing"
    plants: bool = False
    on_channel: bool = False
    ipc: str | None = None
    forgery: Forgery | None = None


def _forged(name: str, forgery: Forgery) -> Probe:
    # Over a stream: what is forged is what frames ask for, and not how they come.
    given = {"replies": forgery.encoded}
    return Probe(
        name,
        "disks",
        forgery.tries,
        "forge",
        given=lambda _scene: given,
        on_channel=True,
        ipc="pipe",
        forgery=forgery,
    )


def _path(path: str) -> Given:
    return lambda _scene: {"path": path}


def _image(scene: Scene) -> Mapping[str, str]:
    return {"path": str(scene.image)}


def _socket(family: int, kind: int = socket.SOCK_STREAM) -> Given:
    return lambda _scene: {"family": str(int(family)), "kind": str(int(kind))}


_signalled: Final = _seen(Scene.signalled)

# The formatter would give each cell a line of its own.
# fmt: off
CATALOGUE: Final = (
    Probe("read-passwd", "files", "read /etc/passwd", "read-file", _brought_something, _path("/etc/passwd")),
    Probe("read-proc", "files", "read /proc/self/maps", "read-file", _brought_something,
          _path("/proc/self/maps")),
    Probe("read-environment", "files", "read the environment of the VMM (a decoy)", "read-file",
          _brought_secret, lambda scene: {"path": f"/proc/{scene.decoy_pid}/environ"}),
    Probe("read-cgroup", "files", "learn the path of the cgroup", "read-file", _brought_cgroup_path,
          _path("/proc/self/cgroup")),
    Probe("read-image", "files", "read the guest image (a decoy)", "read-file", _brought_secret, _image),
    Probe("open-kvm", "files", "open /dev/kvm", "open-device", _did, _path("/dev/kvm")),
    Probe("create-file", "files", "write a file", "create-file", _seen(Scene.planted_file),
          lambda scene: {"path": str(scene.planted)}),
    Probe("delete-file", "files", "delete a file", "delete-file", _seen(Scene.deleted),
          lambda scene: {"path": str(scene.doomed)}),
    Probe("list-directory", "files", "list a directory", "list-directory", _brought_something,
          lambda scene: {"path": str(scene.directory)}),
    Probe("stat-file", "files", "learn a file's size", "look-at-file", _brought_size, _image),
    Probe("handle-file", "files", "read the guest image by its file handle", "read-by-handle",
          _brought_secret, lambda scene: {"handle": scene.handle(str(scene.image))}),
    Probe("memfd", "files", "make a file in memory", "memory-file"),
    Probe("other-descriptors", "files", "write to descriptors 0–63 but the channel", "other-descriptors",
          plants=True),
    Probe("socket-inet", "sockets", "make a TCP socket", "make-socket", _did, _socket(socket.AF_INET)),
    Probe("socket-unix", "sockets", "make a Unix socket", "make-socket", _did, _socket(socket.AF_UNIX)),
    Probe("socket-netlink", "sockets", "make a netlink socket", "make-socket", _did,
          _socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    Probe("socket-vsock", "sockets", "make a vsock socket", "make-socket", _did, _socket(socket.AF_VSOCK)),
    Probe("vsock", "sockets", "listen on a vsock port", "listen-vsock", _seen(Scene.vsock_port_taken)),
    Probe("connect-inet", "sockets", "connect to a TCP port of loopback", "connect-inet",
          _seen(Scene.tcp_connected)),
    Probe("listen-inet", "sockets", "listen on a TCP port of loopback", "listen-inet"),
    Probe("send-datagram", "sockets", "send a UDP datagram to loopback", "send-datagram",
          _seen(Scene.datagram_came)),
    Probe("connect-abstract", "sockets", "connect to an abstract Unix socket", "connect-unix",
          _seen(Scene.abstract_connected), lambda scene: {"path": scene.abstract_name}),
    Probe("connect-path", "sockets", "connect to a Unix socket by its path", "connect-unix",
          _seen(Scene.path_connected), lambda scene: {"path": scene.socket_path}),
    Probe("fork", "processes", "fork", "fork", _brought("child")),
    Probe("clone3", "processes", "clone3", "clone3", _brought("child")),
    Probe("execve", "processes", "run /bin/sh", "execute", _executed),
    Probe("fork-bomb", "processes", f"fork {BOMB} times", "fork-bomb", _brought(str(BOMB))),
    Probe("kill", "processes", "signal the VMM (a decoy) by kill", "kill", _signalled),
    Probe("tkill", "processes", "signal it by tkill", "kill-thread", _signalled),
    Probe("tgkill", "processes", "signal it by tgkill", "kill-in-group", _signalled),
    Probe("sigqueue", "processes", "signal it with a forged sender", "queue-signal", _signalled),
    Probe("pidfd-signal", "processes", "signal it by pidfd", "signal-by-pidfd", _signalled),
    Probe("proc-signal", "processes", "signal it by its directory of /proc", "signal-by-directory",
          _signalled),
    Probe("owner-signal", "processes", "signal it as the owner of a pipe", "signal-by-owner", _signalled),
    Probe("handle-signal", "processes", "signal it by its file handle", "signal-by-handle", _signalled,
          lambda scene: {"handle": scene.process_handle}),
    Probe("ptrace", "processes", "trace the VMM (a decoy), read its secret", "trace", _brought_secret),
    Probe("vm-readv", "processes", "read the VMM's memory (a decoy's)", "read-memory", _brought_secret),
    Probe("pidfd-getfd", "processes", "take a descriptor of the VMM (a decoy)", "steal-descriptor",
          _brought_secret),
    Probe("kill-sibling", "processes", "kill another device process", "kill", sibling=True),
    Probe("prlimit-sibling", "processes", "take memory from another device process (prlimit)",
          "limit-sibling", sibling=True),
    Probe("ptrace-sibling", "processes", "trace another device process", "trace", sibling=True),
    Probe("vm-readv-sibling", "processes", "read another device process's memory", "read-memory",
          sibling=True),
    Probe("raise-priority", "processes", "raise the own priority", "hurry"),
    Probe("become-root", "processes", "become root with capabilities", "become-root"),
    Probe("leave-label", "processes", "take the label of the VMM (audit's) again", "leave-label",
          given=lambda scene: {"label": scene.own_label}),
    Probe("mmap-exec", "memory", "map writable code and run it", "execute-mapping", _brought(str(ANSWER))),
    Probe("mprotect-exec", "memory", "make data executable and run it", "execute-data",
          _brought(str(ANSWER))),
    Probe("personality", "memory", "have all readable memory executable", "read-implies-exec",
          _brought("set")),
    Probe("memory", "memory", f"get {MOST // MIB} MiB of memory", "exhaust-memory",
          _brought(f"{MOST // MIB} MiB")),
    Probe("sysv-shm", "memory", f"get {MOST // MIB} MiB as System V memory", "shared-segments",
          _brought(f"{MOST // MIB} MiB")),
    Probe("shared-segment", "memory", "share System V memory", "shared-segment", _brought_segment),
    Probe("become-dumpable", "memory", "be open to tracers again (prctl)", "become-dumpable", _brought("1")),
    Probe("int80", "kernel", "a system call of i386 by int 0x80", "foreign-call", _brought_pid),
    Probe("io-uring", "kernel", "set up io_uring", "io-uring"),
    Probe("bpf", "kernel", "make a BPF map", "bpf"),
    Probe("perf", "kernel", "open a performance counter", "perf"),
    Probe("userfaultfd", "kernel", "hold page faults", "userfault"),
    Probe("keyring", "kernel", "add a key", "add-key"),
    Probe("io-port", "kernel", "get an I/O port of the host", "open-port"),
    Probe("kernel-log", "kernel", "read the kernel's messages", "kernel-log", _brought("messages")),
    Probe("host-name", "kernel", "learn the host's name", "host-name", _brought(os.uname().nodename)),
    Probe("rename-host", "kernel", "set the host's name (to what it is)", "rename-host", _renamed_host),
    Probe("unshare", "namespaces", "make a user namespace", "new-namespace"),
    Probe("setns", "namespaces", "join the namespace of the VMM (a decoy)", "join-namespace"),
    Probe("mount", "namespaces", "mount a file system, in a namespace of its own", "mount"),
    Probe("handle-namespace", "namespaces", "open the namespace of the VMM (audit's) by its file handle",
          "namespace-by-handle", given=lambda scene: {"handle": scene.handle("/proc/self/ns/uts")}),
    Probe("chroot", "namespaces", "get out of a root directory, read the guest image", "escape-chroot",
          _brought_secret, _image),
    Probe("flood", "channel", "flood the VMM with replies", "flood", on_channel=True),
    Probe("rewrite-page", "channel", "rewrite the shared page while the VMM reads it", "rewrite-page",
          on_channel=True, ipc="shm"),
    *(_forged(name, forgery) for name, forgery in FORGERIES.items()),
    Probe("rdtsc", "time", "read the time stamp counter", "read-tsc", _brought("later"), strict_only=True),
    Probe("clock", "time", "read the clock", "read-clock", _brought("later"), strict_only=True),
    Probe("burn-cpu", "time", "compute without end", "burn-cpu", _burnt,
          open_reason="no cgroup limits its CPU time", unsuccessful="limited by a cgroup"),
)
# fmt: on
"""All probes, in the order of the report."""

OF_VMM: Final = frozenset(
    (  # noqa: SIM905 - fifty lines otherwise
        "read-passwd read-environment read-image open-kvm create-file delete-file list-directory "
        "socket-inet socket-unix socket-netlink socket-vsock vsock connect-inet listen-inet send-datagram "
        "connect-abstract connect-path handle-file handle-signal handle-namespace leave-label "
        "fork clone3 execve fork-bomb kill tkill tgkill sigqueue pidfd-signal proc-signal owner-signal "
        "ptrace vm-readv pidfd-getfd raise-priority become-root "
        "mmap-exec mprotect-exec personality sysv-shm shared-segment "
        "int80 io-uring bpf perf userfaultfd keyring io-port kernel-log host-name rename-host "
        "unshare setns mount chroot"
    ).split()
)
"""Those that the VMM's threads are tried with too. The VMM may do the others: have memory, look at files,
read /proc/self, read clocks; or they are about what device processes are to one another, and to the VMM."""

NOTHING: Final = Probe(
    "nothing", "self", "nothing, to show that the payload does no more", "nothing", _brought("nothing")
)
"""Not in the catalogue: it must succeed under every layer, or no other result means anything."""
