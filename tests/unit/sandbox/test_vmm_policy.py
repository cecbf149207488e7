"""What the VMM's own tables leave out, and that it is left out for every way to ask for it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.sandbox import vmm
from kvmbox.sandbox.policy import ARCH_X86_64, Action, Policy
from kvmbox.sandbox.seccomp import BPF_INSTRUCTION, OWN_PID, SPAWNER_PIDFD, bind, bound_to, filter_of
from kvmbox.sandbox.syscall_names import NAMES, NUMBERS
from kvmbox.sandbox.vmm_policy import MAIN_POLICY, VCPU_POLICY, policies
from tests.reference.bpf import run_bpf

ALLOW, REFUSE = Action.ALLOW, Action.REFUSE
BOTH = [MAIN_POLICY, VCPU_POLICY]
KVM_RUN, TIOCSTI, TCGETS, NOTIF_RECV = 0xAE80, 0x5412, 0x5401, 0xC050_2100
CLONE_OF_PTHREAD_CREATE = 0x3D0F00
ME, PINNED = 4321, 127
BOUND = bound_to(ME, PINNED)

NUMBERS_OF_RULES = st.sampled_from([rule.number for rule in MAIN_POLICY.rules])
ARGUMENTS = st.tuples(
    *[st.one_of(st.sampled_from([0, 1, 2, 4, 8, 9, 18, 19, 1030]), st.integers(0, (1 << 64) - 1))] * 6
)
PIDS = st.integers(1, 1 << 22)

CALLS = [
    # name, arguments, action of the main thread's table, of the vCPU thread's
    ("ioctl", (3, KVM_RUN), ALLOW, ALLOW),
    ("ioctl", (3, 0xFFFF_FFFF_0000_0000 | KVM_RUN), ALLOW, ALLOW),  # the kernel looks at 32 bits
    ("ioctl", (3, 0x4008_AE61), ALLOW, ALLOW),  # KVM_IRQ_LINE
    ("ioctl", (0, TCGETS), ALLOW, REFUSE),
    ("ioctl", (7, NOTIF_RECV), ALLOW, REFUSE),
    ("ioctl", (0, TIOCSTI), REFUSE, REFUSE),
    ("ioctl", (0, 0x541D), REFUSE, REFUSE),  # TIOCCONS
    ("openat", (0, 0, 0o2000000), ALLOW, ALLOW),  # O_RDONLY | O_CLOEXEC
    ("openat", (0, 0, 0o1), REFUSE, REFUSE),
    ("openat", (0, 0, 0o2), REFUSE, REFUSE),
    ("openat", (0, 0, 0o100), REFUSE, REFUSE),  # O_CREAT alone creates
    ("openat", (0, 0, 0o1000), REFUSE, REFUSE),  # O_RDONLY | O_TRUNC truncates on some file systems
    ("open", (0, 0o1101), REFUSE, REFUSE),
    ("mmap", (0, 4096, 3, 0x22, -1, 0), ALLOW, ALLOW),
    ("mmap", (0, 4096, 3, 1, 5, 0), ALLOW, ALLOW),  # a vCPU's pages, shared memory
    ("mmap", (0, 4096, 5, 2, 5, 0), REFUSE, REFUSE),
    ("mmap", (0, 4096, 7, 0x22, -1, 0), REFUSE, REFUSE),
    ("mprotect", (0, 4096, 3), ALLOW, ALLOW),
    ("mprotect", (0, 4096, 5), REFUSE, REFUSE),
    ("clone", (CLONE_OF_PTHREAD_CREATE,), ALLOW, REFUSE),
    ("clone", (17,), REFUSE, REFUSE),  # fork
    ("clone", (0x1000_0000 | CLONE_OF_PTHREAD_CREATE,), REFUSE, REFUSE),  # CLONE_NEWUSER
    ("socketpair", (1, 5 | 0o2000000, 0), ALLOW, ALLOW),  # SOCK_SEQPACKET | SOCK_CLOEXEC
    ("socketpair", (1, 2, 0), REFUSE, REFUSE),  # datagrams could be sent to any address
    ("socketpair", (2, 1, 0), REFUSE, REFUSE),
    ("sendto", (3, 0, 0, 0, 0, 0), ALLOW, ALLOW),
    ("sendto", (3, 0, 0, 0, 0x7FFF_0000, 16), REFUSE, REFUSE),  # to an address
    ("kill", (ME, 19), ALLOW, REFUSE),
    ("kill", (ME, 9), REFUSE, REFUSE),
    ("kill", (ME + 1, 19), REFUSE, REFUSE),
    ("kill", (-ME, 19), REFUSE, REFUSE),
    ("kill", (0, 19), REFUSE, REFUSE),
    ("kill", (OWN_PID, 19), REFUSE, REFUSE),
    ("tgkill", (ME, ME + 3, 10), ALLOW, ALLOW),
    ("tgkill", (0x7_0000_0000 | ME, ME + 3, 10), ALLOW, ALLOW),  # the kernel looks at 32 bits
    ("tgkill", (ME + 3, ME + 3, 9), REFUSE, REFUSE),
    ("tgkill", (-1, ME, 9), REFUSE, REFUSE),
    ("tgkill", (OWN_PID, ME, 9), REFUSE, REFUSE),
    ("pidfd_send_signal", (PINNED, 9, 0, 0), ALLOW, REFUSE),
    ("pidfd_send_signal", (PINNED, 18, 0, 0), ALLOW, REFUSE),
    ("pidfd_send_signal", (PINNED, 19, 0, 0), REFUSE, REFUSE),
    ("pidfd_send_signal", (PINNED, 9, 0x7FFF_0000, 0), REFUSE, REFUSE),  # a forged sender
    ("pidfd_send_signal", (PINNED, 9, 0, 4), REFUSE, REFUSE),  # its process group
    ("pidfd_send_signal", (PINNED - 1, 9, 0, 0), REFUSE, REFUSE),
    ("pidfd_send_signal", (SPAWNER_PIDFD, 9, 0, 0), REFUSE, REFUSE),
    ("fcntl", (3, 1), ALLOW, ALLOW),  # F_GETFD
    ("fcntl", (3, 1030, 3), ALLOW, ALLOW),  # F_DUPFD_CLOEXEC
    ("fcntl", (3, 1033, 7), ALLOW, ALLOW),  # F_ADD_SEALS
    ("fcntl", (3, 4, 0o4000), ALLOW, ALLOW),  # F_SETFL
    ("fcntl", (3, 4, 0o24000), REFUSE, REFUSE),  # with O_ASYNC
    ("fcntl", (3, 8, ME), REFUSE, REFUSE),  # F_SETOWN
    ("fcntl", (3, 0xFFFF_FFFF_0000_0008, ME), REFUSE, REFUSE),
    ("fcntl", (3, 15, 0), REFUSE, REFUSE),  # F_SETOWN_EX
    ("fcntl", (3, 10, 9), REFUSE, REFUSE),  # F_SETSIG
    ("fcntl", (3, 1026, 0), REFUSE, REFUSE),  # F_NOTIFY
    ("fcntl", (3, 1024, 0), REFUSE, REFUSE),  # F_SETLEASE
    ("ioctl", (3, 0x8901), REFUSE, REFUSE),  # FIOSETOWN
    ("ioctl", (3, 0x8902), REFUSE, REFUSE),  # SIOCSPGRP
    ("ioctl", (3, 0x5452), REFUSE, REFUSE),  # FIOASYNC
    ("ioctl", (0, 0x5410), REFUSE, REFUSE),  # TIOCSPGRP
    ("seccomp", (1, 0), ALLOW, REFUSE),
    ("seccomp", (1, 8), REFUSE, REFUSE),  # with a listener: it could answer calls
]

NEVER = [
    "execve", "execveat", "fork", "vfork", "clone3", "ptrace", "process_vm_readv", "process_vm_writev",
    "socket", "connect", "bind", "listen", "accept4", "openat2", "creat", "unlink", "rename", "mkdir",
    "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "bpf", "io_uring_setup",
    "perf_event_open", "userfaultfd", "keyctl", "init_module", "kexec_load", "setuid", "capset", "prctl",
    "personality", "pidfd_open", "pidfd_getfd", "pkey_mprotect", "tkill", "name_to_handle_at",
    "open_by_handle_at", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "timer_create", "setitimer", "alarm",
    "mq_notify", "prlimit64", "setrlimit", "close_range", "dup2", "dup3", "kcmp", "setpriority", "setpgid",
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "main", "vcpu"), CALLS)
def test_vmm_call_gives_action(name: str, arguments: tuple[int, ...], main: Action, vcpu: Action) -> None:
    number = NUMBERS[name]
    both = [policy.bound(BOUND) for policy in BOTH]
    assert [policy.simulate(number, arguments) for policy in both] == [main, vcpu]
    for policy, action in zip(BOTH, (main, vcpu), strict=True):
        bpf = bind(filter_of(policy), BOUND)
        assert run_bpf(bpf, number, ARCH_X86_64, arguments) is action


@pytest.mark.parametrize("policy", BOTH, ids=lambda one: one.name)
@given(number=NUMBERS_OF_RULES, arguments=ARGUMENTS, pid=PIDS, pinned=st.integers(3, 1023))
def test_bound_filter_any_call_decides_as_the_bound_simulation(
    policy: Policy, number: int, arguments: tuple[int, ...], pid: int, pinned: int
) -> None:
    values = bound_to(pid, pinned)
    bpf = bind(filter_of(policy), values)
    arguments = tuple({1: pid, 2: pinned}.get(one, one) for one in arguments)
    bound = policy.bound(values)
    assert run_bpf(bpf, number, ARCH_X86_64, arguments) is bound.simulate(number, arguments)


@pytest.mark.parametrize("policy", BOTH, ids=lambda one: one.name)
def test_bound_filter_has_no_placeholder_left(policy: Policy) -> None:
    bpf = bind(filter_of(policy), BOUND)
    ks = [k for _, _, _, k in BPF_INSTRUCTION.iter_unpack(bpf)]
    assert not {OWN_PID, SPAWNER_PIDFD} & set(ks)
    assert ME in ks


def test_filter_without_a_spawner_lets_nothing_be_signalled_by_descriptor() -> None:
    bound = MAIN_POLICY.bound(bound_to(ME, None))
    for descriptor in (*range(2048), SPAWNER_PIDFD):
        assert bound.simulate(NUMBERS["pidfd_send_signal"], (descriptor, 9, 0, 0)) is REFUSE


@pytest.mark.parametrize("policy", BOTH, ids=lambda one: one.name)
@pytest.mark.parametrize("name", NEVER)
def test_vmm_call_is_never_allowed(policy: Policy, name: str) -> None:
    assert NUMBERS[name] not in {rule.number for rule in policy.rules}


def test_vcpu_table_is_part_of_the_main_thread_s() -> None:
    assert set(map(repr, VCPU_POLICY.rules)) < set(map(repr, MAIN_POLICY.rules))


@pytest.mark.parametrize("disks", [False, True])
def test_debugger_s_socket_adds_that_a_client_is_accepted_and_nothing_else(disks: bool) -> None:
    main, vcpu = policies(accepts=True, disks=disks)
    usual = policies(disks=disks)
    assert [rule.name for rule in main.rules if rule not in usual[0].rules] == ["accept4", "accept"]
    assert main.default is REFUSE
    assert vcpu is usual[1]


def test_disks_add_reading_and_writing_at_a_position_and_the_vcpu_thread_never_waits() -> None:
    main, vcpu = policies(disks=True)
    (added,) = [rule for rule in vcpu.rules if rule not in VCPU_POLICY.rules]
    assert (added.name, [(one.argument, one.value) for one in added.conditions]) == (
        "preadv2",
        [(5, os.RWF_NOWAIT)],
    )
    assert [rule.name for rule in main.rules if rule not in MAIN_POLICY.rules] == [
        "preadv2",
        "preadv",
        "pwrite64",
    ]
    assert policies() == (MAIN_POLICY, VCPU_POLICY)


@pytest.mark.parametrize("policy", BOTH, ids=lambda one: one.name)
def test_vmm_rules_begin_with_kvm_and_have_a_reason_each(policy: Policy) -> None:
    assert [rule.name for rule in policy.rules[:3]] == ["ioctl", "read", "write"]
    assert all(rule.reason and NAMES[rule.number] == rule.name for rule in policy.rules)


# --- What Landlock lets be read ---------------------------------------------------------------------------


def test_readable_directories_are_of_packages_only() -> None:
    path = ("", "/srv/bin", "/opt/v/lib/python3.11/site-packages", "/usr/lib/python3/dist-packages")
    found = vmm.readable_directories(path)
    assert "/opt/v/lib/python3.11/site-packages" in found
    assert "/usr/lib/python3/dist-packages" in found
    assert "/proc" in found
    assert not {"", "/", "/srv/bin"} & set(found)


def test_readable_directories_none_is_below_another() -> None:
    found = vmm.readable_directories(("/proc/x/site-packages", "/procx/site-packages"))
    assert "/proc/x/site-packages" not in found
    assert "/procx/site-packages" in found
