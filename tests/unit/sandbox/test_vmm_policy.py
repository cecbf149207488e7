"""What the VMM's own tables leave out, and that it is left out for every way to ask for it."""

from __future__ import annotations

import pytest

from kvmbox.sandbox import vmm
from kvmbox.sandbox.policy import Policy, Verdict
from kvmbox.sandbox.syscall_names import NAMES, NUMBERS
from kvmbox.sandbox.vmm_policy import MAIN_POLICY, VCPU_POLICY

ALLOW, REFUSE = Verdict.ALLOW, Verdict.REFUSE
BOTH = [MAIN_POLICY, VCPU_POLICY]
KVM_RUN, TIOCSTI, TCGETS, NOTIF_RECV = 0xAE80, 0x5412, 0x5401, 0xC050_2100
CLONE_OF_PTHREAD_CREATE = 0x3D0F00

CALLS = [
    # name, arguments, verdict of the main thread's table, of the vCPU thread's
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
    ("socketpair", (1, 5, 0), ALLOW, ALLOW),
    ("socketpair", (2, 1, 0), REFUSE, REFUSE),
    ("sendto", (3, 0, 0, 0, 0, 0), ALLOW, ALLOW),
    ("sendto", (3, 0, 0, 0, 0x7FFF_0000, 16), REFUSE, REFUSE),  # to an address
    ("kill", (1234, 19), ALLOW, REFUSE),
    ("kill", (1234, 9), REFUSE, REFUSE),
    ("seccomp", (1, 0), ALLOW, REFUSE),
    ("seccomp", (1, 8), REFUSE, REFUSE),  # with a listener: it could answer calls
]

NEVER = [
    "execve", "execveat", "fork", "vfork", "clone3", "ptrace", "process_vm_readv", "process_vm_writev",
    "socket", "connect", "bind", "listen", "accept4", "openat2", "creat", "unlink", "rename", "mkdir",
    "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "bpf", "io_uring_setup",
    "perf_event_open", "userfaultfd", "keyctl", "init_module", "kexec_load", "setuid", "capset", "prctl",
    "personality", "pidfd_open", "pidfd_getfd", "pkey_mprotect", "tkill", "name_to_handle_at",
    "open_by_handle_at",
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "main", "vcpu"), CALLS)
def test_vmm_call_gives_verdict(name: str, arguments: tuple[int, ...], main: Verdict, vcpu: Verdict) -> None:
    number = NUMBERS[name]
    assert (MAIN_POLICY.simulate(number, arguments), VCPU_POLICY.simulate(number, arguments)) == (main, vcpu)


@pytest.mark.parametrize("policy", BOTH, ids=lambda one: one.name)
@pytest.mark.parametrize("name", NEVER)
def test_vmm_call_is_never_allowed(policy: Policy, name: str) -> None:
    assert NUMBERS[name] not in {rule.number for rule in policy.rules}


def test_vcpu_table_is_part_of_the_main_thread_s() -> None:
    assert set(map(repr, VCPU_POLICY.rules)) < set(map(repr, MAIN_POLICY.rules))


@pytest.mark.parametrize("policy", BOTH, ids=lambda one: one.name)
def test_vmm_rules_begin_with_kvm_and_have_a_reason_each(policy: Policy) -> None:
    assert [rule.name for rule in policy.rules[:3]] == ["ioctl", "read", "write"]
    assert all(rule.reason and NAMES[rule.number] == rule.name for rule in policy.rules)


# --- What Landlock lets be read ---------------------------------------------------------------------------


def test_readable_directories_are_of_packages_only() -> None:
    path = ["", "/srv/bin", "/opt/v/lib/python3.11/site-packages", "/usr/lib/python3/dist-packages"]
    found = vmm.readable_directories(path)
    assert "/opt/v/lib/python3.11/site-packages" in found
    assert "/usr/lib/python3/dist-packages" in found
    assert "/proc" in found
    assert not {"", "/", "/srv/bin"} & set(found)


def test_readable_directories_none_is_below_another() -> None:
    found = vmm.readable_directories(["/proc/x/site-packages", "/procx/site-packages"])
    assert "/proc/x/site-packages" not in found
    assert "/procx/site-packages" in found
