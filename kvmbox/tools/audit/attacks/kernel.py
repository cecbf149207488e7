"""After the kernel's less trodden paths, its namespaces, and one's own restrictions."""

from __future__ import annotations

import struct

from kvmbox.jail import linux
from kvmbox.tools.audit.attacks.calls import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    NUMBERS,
    address,
    attempt,
    filled,
    open_file,
    read_some,
    space,
    text,
    unshare,
)
from kvmbox.tools.audit.wire import Stopped

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
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
READ_IMPLIES_EXEC: Final = 0x0040_0000
ASK_PERSONALITY: Final = 0xFFFF_FFFF
UTSNAME_SIZE: Final = 390
UTSNAME_FIELD: Final = 65
IPC_CREAT: Final = 0o1000
IPC_EXCL: Final = 0o2000
IPC_PRIVATE: Final = 0
IPC_RMID: Final = 0
DEEP: Final = "../" * 40


def io_uring(_given: dict[str, str]) -> None:
    """A ring that makes system calls where no filter sees them."""
    parameters = space(IO_URING_PARAMS)
    # SAFETY: a structure of the size that the kernel reads and writes; so in all that follow.
    attempt("io_uring_setup", 1, address(parameters))


def bpf(_given: dict[str, str]) -> None:
    """A BPF map of one element."""
    attributes = filled(struct.pack("=4I", BPF_MAP_TYPE_ARRAY, 4, 4, 1).ljust(BPF_ATTRIBUTES, b"\0"))
    attempt("bpf", BPF_MAP_CREATE, address(attributes), BPF_ATTRIBUTES)


def perf(_given: dict[str, str]) -> None:
    """A performance counter on oneself, in user mode only."""
    attributes = filled(
        struct.pack(
            "=IIQ3QQ", PERF_TYPE_SOFTWARE, PERF_ATTRIBUTES, 0, 0, 0, 0, PERF_EXCLUDE_KERNEL_AND_HYPERVISOR
        ).ljust(PERF_ATTRIBUTES, b"\0")
    )
    attempt("perf_event_open", address(attributes), 0, -1, -1, 0)


def userfault(_given: dict[str, str]) -> None:
    """A descriptor that holds page faults."""
    attempt("userfaultfd", UFFD_USER_MODE_ONLY)


def add_key(_given: dict[str, str]) -> None:
    """A key, in the keyring that dies with the process."""
    kind, name, value = text("user"), text("kvmbox-audit"), filled(b"!")
    attempt("add_key", address(kind), address(name), address(value), 1, KEY_SPEC_PROCESS_KEYRING)


def mount(given: dict[str, str]) -> None:
    """A file system, in a mount namespace of its own from which nothing gets out."""
    unshare(CLONE_NEWNS)
    root, where, kind = text("/"), text(given["directory"]), text("tmpfs")
    attempt("mount", 0, address(root), 0, MS_REC | MS_PRIVATE, 0)
    attempt("mount", address(kind), address(where), address(kind), 0, 0)


def new_namespace(_given: dict[str, str]) -> None:
    """A user namespace of one's own: every capability, inside."""
    attempt("unshare", CLONE_NEWUSER)


def join_namespace(given: dict[str, str]) -> None:
    """The namespace of another process."""
    attempt("setns", attempt("pidfd_open", int(given["pid"]), 0), CLONE_NEWUTS)


def escape_chroot(given: dict[str, str]) -> bytes:
    """The old way out of a root directory: a second one below, then up from outside of it, to a secret."""
    below, up, here = text(given["directory"]), text(DEEP), text(".")
    if linux.raw_syscall(NUMBERS["chroot"], address(below)) < 0:
        attempt("unshare", CLONE_NEWUSER)
        attempt("chroot", address(below))
    attempt("chdir", address(up))
    attempt("chroot", address(here))
    return read_some(open_file(given["path"]), 256)


def become_dumpable(_given: dict[str, str]) -> bytes:
    """Open oneself to tracers again."""
    attempt("prctl", linux.PR_SET_DUMPABLE, 1)
    return b"%d" % attempt("prctl", linux.PR_GET_DUMPABLE)


def read_implies_exec(_given: dict[str, str]) -> bytes:
    """The personality in which whatever can be read can be run."""
    attempt("personality", READ_IMPLIES_EXEC)
    return b"set" if attempt("personality", ASK_PERSONALITY) & READ_IMPLIES_EXEC else b""


def host_name(_given: dict[str, str]) -> bytes:
    """The name of the host."""
    names = space(UTSNAME_SIZE)
    attempt("uname", address(names))
    return names.raw[UTSNAME_FIELD : 2 * UTSNAME_FIELD].rstrip(b"\0")


def rename_host(given: dict[str, str]) -> None:
    """Give the host the name that it has."""
    name = text(given["host"])
    attempt("sethostname", address(name), len(given["host"].encode()))


def shared_segment(given: dict[str, str]) -> bytes:
    """System V shared memory, marked at once to go with the process."""
    segment = attempt("shmget", IPC_PRIVATE, int(given["segment_size"]), IPC_CREAT | IPC_EXCL | 0o666)
    attempt("shmat", segment, 0, 0)
    attempt("shmctl", segment, IPC_RMID, 0)
    return b"%d" % segment


def become_root(_given: dict[str, str]) -> bytes:
    """User 0 again, with what user 0 may do."""
    attempt("setuid", 0)
    header = filled(struct.pack("=Ii", linux.CAPABILITY_VERSION_3, 0))
    sets = space(CAPABILITY_SETS)
    attempt("capget", address(header), address(sets))
    if not any(sets.raw):
        raise Stopped("capget", 0, b"user 0 without any capability")
    return b"capable"


def hurry(_given: dict[str, str]) -> None:
    """A higher priority than anybody was given."""
    attempt("setpriority", 0, 0, -5)
