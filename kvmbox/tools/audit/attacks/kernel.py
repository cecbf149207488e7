"""After the kernel's less trodden paths, its namespaces, and one's own restrictions."""

from __future__ import annotations

import struct

from kvmbox.jail import linux, namespaces
from kvmbox.tools.audit.attacks import syscalls
from kvmbox.tools.audit.payload_frames import Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CAPABILITY_SETS: Final = 24
IO_URING_PARAMS: Final = 120
BPF_MAP_CREATE: Final = 0
BPF_MAP_TYPE_ARRAY: Final = 2
BPF_ATTRIBUTES: Final = 72
PERF_ATTRIBUTES: Final = 112
PERF_TYPE_SOFTWARE: Final = 1
PERF_EXCLUDE_KERNEL_AND_HYPERVISOR: Final = 1 << 5 | 1 << 6
UFFD_USER_MODE_ONLY: Final = 1
KEY_SPEC_PROCESS_KEYRING: Final = -2
READ_IMPLIES_EXEC: Final = 0x0040_0000
ASK_PERSONALITY: Final = 0xFFFF_FFFF
UTSNAME_SIZE: Final = 390
UTSNAME_FIELD: Final = 65
FD_NSFS_ROOT: Final = -10003
DIAGNOSTIC_PORT: Final = 0x80
SYSLOG_ACTION_READ_ALL: Final = 3
LOG_SIZE: Final = 4096
DEEP: Final = "../" * 40


def io_uring(_given: dict[str, str]) -> None:
    """A ring that makes system calls where no filter sees them."""
    # SAFETY: a structure of the size that the kernel reads and writes; so in all that follow.
    syscalls.attempt("io_uring_setup", 1, syscalls.space(IO_URING_PARAMS))


def bpf(_given: dict[str, str]) -> None:
    """A BPF map of one element."""
    attributes = syscalls.filled(struct.pack("=4I", BPF_MAP_TYPE_ARRAY, 4, 4, 1).ljust(BPF_ATTRIBUTES, b"\0"))
    syscalls.attempt("bpf", BPF_MAP_CREATE, attributes, BPF_ATTRIBUTES)


def perf(_given: dict[str, str]) -> None:
    """A performance counter on oneself, in user mode only."""
    excluded = PERF_EXCLUDE_KERNEL_AND_HYPERVISOR
    attributes = struct.pack("=IIQ3QQ", PERF_TYPE_SOFTWARE, PERF_ATTRIBUTES, 0, 0, 0, 0, excluded)
    structure = syscalls.filled(attributes.ljust(PERF_ATTRIBUTES, b"\0"))
    syscalls.attempt("perf_event_open", structure, 0, -1, -1, 0)


def userfault(_given: dict[str, str]) -> None:
    """A descriptor that holds page faults."""
    syscalls.attempt("userfaultfd", UFFD_USER_MODE_ONLY)


def add_key(_given: dict[str, str]) -> None:
    """A key, in the keyring that dies with the process."""
    kind, name, value = syscalls.text("user"), syscalls.text("kvmbox-audit"), syscalls.filled(b"!")
    syscalls.attempt("add_key", kind, name, value, 1, KEY_SPEC_PROCESS_KEYRING)


def mount(given: dict[str, str]) -> None:
    """A file system, in a mount namespace of its own from which nothing gets out."""
    syscalls.unshare(namespaces.CLONE_NEWNS)
    where, kind = syscalls.text(given["directory"]), syscalls.text("tmpfs")
    syscalls.attempt("mount", 0, syscalls.text("/"), 0, namespaces.MS_REC | namespaces.MS_PRIVATE, 0)
    syscalls.attempt("mount", kind, where, kind, 0, 0)


def namespace_by_handle(given: dict[str, str]) -> None:
    """A namespace by its file handle, without /proc and without a process in it (Linux 6.18)."""
    syscalls.open_handle(FD_NSFS_ROOT, given["handle"])


def open_port(_given: dict[str, str]) -> None:
    """An I/O port of the host, which only shows what the firmware does; it is left alone."""
    syscalls.attempt("ioperm", DIAGNOSTIC_PORT, 1, 1)


def kernel_log(_given: dict[str, str]) -> bytes:
    """The kernel's messages."""
    messages = syscalls.space(LOG_SIZE)
    length = syscalls.attempt("syslog", SYSLOG_ACTION_READ_ALL, messages, LOG_SIZE)
    return b"messages" if length else b""


def new_namespace(_given: dict[str, str]) -> None:
    """A user namespace of one's own: every capability, inside."""
    syscalls.attempt("unshare", linux.CLONE_NEWUSER)


def join_namespace(given: dict[str, str]) -> None:
    """The namespace of another process."""
    syscalls.attempt("setns", syscalls.attempt("pidfd_open", int(given["pid"]), 0), namespaces.CLONE_NEWUTS)


def escape_chroot(given: dict[str, str]) -> bytes:
    """The old way out of a root directory: a second one below, then up from outside of it, to a secret."""
    below = syscalls.text(given["directory"])
    if syscalls.tried("chroot", below) < 0:
        syscalls.attempt("unshare", linux.CLONE_NEWUSER)
        syscalls.attempt("chroot", below)
    syscalls.attempt("chdir", syscalls.text(DEEP))
    syscalls.attempt("chroot", syscalls.text("."))
    return syscalls.read_some(syscalls.open_file(given["path"]), 256)


def become_dumpable(_given: dict[str, str]) -> bytes:
    """Open oneself to tracers again."""
    syscalls.attempt("prctl", linux.PR_SET_DUMPABLE, 1)
    return b"%d" % syscalls.attempt("prctl", linux.PR_GET_DUMPABLE)


def read_implies_exec(_given: dict[str, str]) -> bytes:
    """The personality in which whatever can be read can be run."""
    syscalls.attempt("personality", READ_IMPLIES_EXEC)
    return b"set" if syscalls.attempt("personality", ASK_PERSONALITY) & READ_IMPLIES_EXEC else b""


def host_name(_given: dict[str, str]) -> bytes:
    """The name of the host."""
    names = syscalls.space(UTSNAME_SIZE)
    syscalls.attempt("uname", names)
    return names.raw[UTSNAME_FIELD : 2 * UTSNAME_FIELD].rstrip(b"\0")


def rename_host(given: dict[str, str]) -> None:
    """Give the host the name that it has."""
    syscalls.attempt("sethostname", syscalls.text(given["host"]), len(given["host"].encode()))


def become_root(_given: dict[str, str]) -> bytes:
    """User 0 again, with what user 0 may do."""
    syscalls.attempt("setuid", 0)
    header = syscalls.filled(struct.pack("=Ii", linux.CAPABILITY_VERSION_3, 0))
    sets = syscalls.space(CAPABILITY_SETS)
    syscalls.attempt("capget", header, sets)
    if not any(sets.raw):
        raise Stopped("capget", 0, b"user 0 without any capability")
    return b"capable"


def hurry(_given: dict[str, str]) -> None:
    """A higher priority than anybody was given."""
    syscalls.attempt("setpriority", 0, 0, -5)
