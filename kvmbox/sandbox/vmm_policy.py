"""What the VMM's own threads may ask of the kernel while a guest runs: two tables, each rule with its reason.

Theory of operation
-------------------
Two threads have a table: the vCPU thread, which handles what the guest does, and the main thread, whose
filter the threads that write output and records have as well. They share one address space, so whoever takes
over one of them can have another act for him: what all of them together may do is what an attacker gets, and
that is the main thread's table. The vCPU thread's is shorter: in the way of a fault rather than of a plan.

A call that no rule allows fails with ENOSYS, as if this kernel did not have it, and the error ends the run as
any other does: output is flushed, the terminal restored, the status is 14. To kill the process would lose
what the guest has printed. ENOSYS and not EPERM, because the C library takes it for what it is and goes back
to an older call (pthread_create from clone3, whose flags no filter can see, to clone, whose flags it can).

What is not there: execve, fork, ptrace, socket, connect, bind, opening anything for writing, executable
memory, mount, unshare, bpf, io_uring, and whatever comes with the next kernel.

Signals go to three parties at most: a thread of our own (the kick), ourselves (Ctrl-Z), and the spawner,
which is the one that kills device processes. The first two are named by our own pid, the third by one
descriptor. A taken-over thread could close a descriptor and open the /proc directory of a stranger in its
place, which is as good as a pidfd. So that number is the limit of open files: nothing that is opened later
can have it. The tables below have placeholders for both numbers (`seccomp.bound_to`).
What else sends signals is not there: the owner of a descriptor (F_SETOWN, O_ASYNC, FIOASYNC), timers,
message queues, death signals.

What is there was seen in traces of all tests of runs, or is what CPython and the C library do for the same on
other versions (docs/adr/confinement.md).
"""

from __future__ import annotations

from typing import Final

from kvmbox.sandbox.policy import INT, Action, Condition, Policy, Rule
from kvmbox.sandbox.seccomp import OWN_PID, SPAWNER_PIDFD
from kvmbox.sandbox.syscall_names import NUMBERS

# <asm-generic/fcntl.h>
O_WRITING: Final = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000
"""O_ACCMODE, O_CREAT, O_TRUNC, O_APPEND and O_TMPFILE's own bit: none of them, and nothing is written."""

PROT_EXEC: Final = 4
AF_UNIX: Final = 1
SOCK_SEQPACKET: Final = 5
SOCK_TYPE: Final = 0xF
SIGKILL: Final = 9
SIGCONT: Final = 18
SIGSTOP: Final = 19
SET_MODE_FILTER: Final = 1  # <linux/seccomp.h>
RWF_NOWAIT: Final = 8  # <linux/fs.h>

# <asm-generic/fcntl.h>, <linux/fcntl.h>: those that act on the descriptor and on nothing else.
DESCRIPTOR_CALLS: Final = {
    "F_DUPFD": 0,
    "F_GETFD": 1,
    "F_SETFD": 2,
    "F_GETFL": 3,
    "F_DUPFD_CLOEXEC": 1030,
    "F_ADD_SEALS": 1033,
    "F_GET_SEALS": 1034,
}
F_SETFL: Final = 4
O_ASYNC: Final = 0o20000

# <linux/sched.h>: a thread, and no new namespace with it (CLONE_NEWTIME is the lowest).
CLONE_THREAD: Final = 0x0001_0000
CLONE_NEW: Final = 0x7E02_0080

# The second byte of an ioctl's number is whose it is (<asm-generic/ioctl.h>).
IOCTL_TYPE: Final = 0xFF00
KVM_TYPE: Final = 0xAE00
SECCOMP_TYPE: Final = 0x2100

# <asm-generic/ioctls.h>, by name: among the others are some that type on the terminal (TIOCSTI).
TERMINAL_CALLS: Final = {
    "TCGETS": 0x5401,
    "TCSETS": 0x5402,
    "TCSETSW": 0x5403,
    "TCSETSF": 0x5404,
    "TIOCGPGRP": 0x540F,
    "TIOCGWINSZ": 0x5413,
    "FIONREAD": 0x541B,
    "FIONBIO": 0x5421,
    "FIONCLEX": 0x5450,
    "FIOCLEX": 0x5451,
    "TCGETS2": 0x802C_542A,
    "TCSETS2": 0x402C_542B,
    "TCSETSW2": 0x402C_542C,
    "TCSETSF2": 0x402C_542D,
}


def _rule(name: str, reason: str, *conditions: Condition) -> Rule:
    return Rule(name, NUMBERS[name], reason, conditions)


def _rules(reason: str, names: str) -> tuple[Rule, ...]:
    return tuple(_rule(name, reason) for name in names.split())


_NOT_EXECUTABLE: Final = Condition(2, 0, PROT_EXEC)

_KVM: Final = _rule("ioctl", "run the vCPU, and ask KVM about it", Condition(1, KVM_TYPE, IOCTL_TYPE))

_BOTH: Final = (
    *_rules("channels, wake-ups, output, input", "read write"),
    *_rules("wait for them", "poll ppoll"),
    *_rules("locks, and the interpreter's own", "futex"),
    *_rules("when the next deadline is", "timerfd_settime"),
    *_rules(
        "the clock where the vDSO has none, and waiting",
        "clock_gettime clock_getres gettimeofday nanosleep clock_nanosleep restart_syscall sched_yield",
    ),
    _rule("mmap", "memory, and files that are mapped: never executable", _NOT_EXECUTABLE),
    _rule("mprotect", "the C library's arenas grow: never executable", _NOT_EXECUTABLE),
    *_rules("memory", "munmap mremap madvise brk"),
    *_rules("signals: handlers, masks", "rt_sigreturn rt_sigprocmask rt_sigaction sigaltstack"),
    *_rules("a kick that was heard", "rt_sigtimedwait"),
    _rule("tgkill", "the vCPU's kick: a thread of our own", Condition(0, OWN_PID, INT)),
    *_rules("who we are", "getpid gettid"),
    *_rules("the end of a thread, and of the process", "exit exit_group"),
    *_rules(
        "frames of the spawner and of device processes",
        "sendmsg recvmsg recvfrom shutdown getsockname getsockopt",
    ),
    _rule(
        "socketpair",
        "the channel of a new device process: any thread may need one",
        Condition(0, AF_UNIX, INT),
        # Not a datagram socket: that could send to any address, which is in memory, where no filter looks.
        Condition(1, SOCK_SEQPACKET, SOCK_TYPE),
    ),
    *_rules("the same, as pipes or shared memory", "pipe2 memfd_create ftruncate eventfd2"),
    *_rules("how the spawner died", "wait4 waitid"),
    _rule("sendto", "a frame, to the peer that there is", Condition(4, 0)),
    *_rules("the CPU that the vCPU shares with its devices", "sched_setaffinity sched_getaffinity"),
    *_rules("random numbers of the interpreter", "getrandom"),
    *_rules("descriptors: close, duplicate, look at", "close dup fstat lseek"),
    *(
        _rule("fcntl", f"the same: {name}", Condition(1, number, INT))
        for name, number in DESCRIPTOR_CALLS.items()
    ),
    _rule(
        "fcntl",
        "the same: F_SETFL, without signals",
        Condition(1, F_SETFL, INT),
        Condition(2, 0, O_ASYNC),
    ),
    _rule("openat", "modules and sources of Python, /proc: to read", Condition(2, 0, O_WRITING)),
    _rule("open", "the same, of an older C library", Condition(1, 0, O_WRITING)),
    *_rules(
        "find them",
        "newfstatat stat lstat statx access faccessat faccessat2 readlink readlinkat getdents64 getcwd",
    ),
)

VCPU_POLICY: Final = Policy("vmm-vcpu", (_KVM, *_BOTH), default=Action.REFUSE)
"""The thread that runs the guest, and handles its exits."""

MAIN_POLICY: Final = Policy(
    "vmm-main",
    (
        _KVM,
        *_BOTH,
        _rule("ioctl", "the call that a device process is held in", Condition(1, SECCOMP_TYPE, IOCTL_TYPE)),
        *(
            _rule("ioctl", f"the terminal, and descriptors: {name}", Condition(1, number, INT))
            for name, number in TERMINAL_CALLS.items()
        ),
        *_rules("whether the terminal is ours", "getpgrp getpgid"),
        _rule("clone", "a thread, for the next boot", Condition(0, CLONE_THREAD, CLONE_THREAD | CLONE_NEW)),
        *_rules("a new thread's first steps", "set_robust_list rseq"),
        _rule("seccomp", "and its own filter, on top", Condition(0, SET_MODE_FILTER, INT), Condition(1, 0)),
        _rule(
            "kill", "stop ourselves, as Ctrl-Z asks", Condition(0, OWN_PID, INT), Condition(1, SIGSTOP, INT)
        ),
        *(
            _rule(
                "pidfd_send_signal",
                reason,
                Condition(0, SPAWNER_PIDFD, INT),
                Condition(1, number, INT),
                Condition(2, 0),
                Condition(3, 0, INT),
            )
            for number, reason in (
                (SIGCONT, "the spawner goes on, to end its children"),
                (SIGKILL, "a spawner that does not obey; its children die with it"),
            )
        ),
        *_rules("a record's end", "fsync fdatasync"),
    ),
    default=Action.REFUSE,
)
"""Every other thread: the main thread, and those that write."""


_CLIENT: Final = _rules("the client of --gdb, at the socket that listens since before", "accept4 accept")
_DISK_NOW: Final = (
    _rule("preadv2", "a disk, as far as nothing has to be waited for", Condition(5, RWF_NOWAIT, INT)),
)
_DISK: Final = _rules("a disk, by the thread that transfers data", "preadv pwrite64")

DISK_VCPU_POLICY: Final = Policy("vmm-vcpu-disk", (*VCPU_POLICY.rules, *_DISK_NOW), default=Action.REFUSE)
"""The same of a run whose guest has a disk."""
DISK_MAIN_POLICY: Final = Policy(
    "vmm-main-disk", (*MAIN_POLICY.rules, *_DISK_NOW, *_DISK), default=Action.REFUSE
)
"""The same of every other thread."""


def policies(*, accepts: bool = False, disks: bool = False) -> tuple[Policy, Policy]:
    """The main thread's and the vCPU thread's of a run with `disks`, or whose --gdb is a socket (`accepts`).

    The last ones are made and compiled when they are needed.
    """
    main, vcpu = (DISK_MAIN_POLICY, DISK_VCPU_POLICY) if disks else (MAIN_POLICY, VCPU_POLICY)
    if accepts:
        main = Policy(f"{main.name}-gdb", (*main.rules, *_CLIENT), default=Action.REFUSE)
    return main, vcpu
