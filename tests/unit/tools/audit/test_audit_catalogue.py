"""The catalogue and the payload fit together, and the payload is lean."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kvmbox
from kvmbox.sandbox.libseccomp import load_libseccomp
from kvmbox.tools.audit import payload
from kvmbox.tools.audit.attacks.syscalls import NUMBERS
from kvmbox.tools.audit.forgeries import FORGERIES, Victim
from kvmbox.tools.audit.probe_catalogue import CATALOGUE, NOTHING

WANTED = {
    *("read-passwd", "read-proc", "open-kvm", "read-image", "list-directory", "read-environment"),
    *("socket-inet", "socket-unix", "socket-netlink", "socket-vsock", "connect-inet", "fork"),
    *("execve", "clone3", "ptrace", "vm-readv", "ptrace-sibling", "vm-readv-sibling", "kill"),
    *("tkill", "pidfd-signal", "io-uring", "bpf", "perf", "userfaultfd", "keyring", "mount"),
    *("unshare", "setns", "mmap-exec", "mprotect-exec", "memfd", "other-descriptors", "pidfd-getfd"),
    *("become-dumpable", "personality", "chroot", "rewrite-page", "clock", "rdtsc", "memory"),
    *("fork-bomb", "flood", "burn-cpu"),
}
"""One for each of the ways out that a device process may not have."""


def test_every_probe_has_an_attack_and_every_attack_a_probe() -> None:
    used = {probe.attack for probe in [NOTHING, *CATALOGUE]}

    assert used == set(payload.ATTACKS) - {"bystander"}


def test_names_of_probes_are_all_different() -> None:
    names = [probe.name for probe in CATALOGUE]

    assert len(set(names)) == len(names)


def test_what_the_issue_of_containment_is_about_is_in_the_catalogue() -> None:
    names = {probe.name for probe in CATALOGUE}

    assert names >= WANTED


def test_each_forgery_is_a_probe_and_says_last_what_is_not_granted() -> None:
    assert {probe.name: probe.forgery for probe in CATALOGUE if probe.forgery} == FORGERIES
    for forgery in FORGERIES.values():
        victim = Victim(forgery.device_type)
        assert not victim.is_harmed
        assert len(forgery.replies[-1]) == 1


def test_only_time_is_left_to_strict_mode_and_only_cpu_time_to_nobody() -> None:
    assert {probe.name for probe in CATALOGUE if probe.strict_only} == {"rdtsc", "clock"}
    assert {probe.name for probe in CATALOGUE if probe.open_reason} == {"burn-cpu"}


def test_system_call_numbers_are_those_of_libseccomp() -> None:
    seccomp = load_libseccomp()

    assert {name: seccomp.resolve_syscall(seccomp.Arch.X86_64, name) for name in NUMBERS} == NUMBERS


def test_payload_loads_nothing_that_device_processes_do_not() -> None:
    code = (
        f"import sys; sys.path.append({str(Path(kvmbox.__file__).parent.parent)!r}); "
        "import kvmbox.jail.spawner, kvmbox.jail.server; before = set(sys.modules); "
        "import kvmbox.tools.audit.payload; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env={}, capture_output=True, text=True, check=True
    )
    added = {name for name in done.stdout.split() if not name.startswith("kvmbox.")}

    assert added <= {"mmap", "time"}
