"""What counts as success: not that a call returned, but that something was got by it."""

from __future__ import annotations

import pytest

from kvmbox.tools.audit.attack_result import Ended, Result
from kvmbox.tools.audit.audit_setup import Scene
from kvmbox.tools.audit.probe_catalogue import CATALOGUE, Probe

PROBES = {probe.name: probe for probe in CATALOGUE}
SECRET = ["read-environment", "read-image", "ptrace", "vm-readv", "pidfd-getfd", "chroot"]
EVIDENCE = [
    *("fork", "clone3", "fork-bomb", "mmap-exec", "mprotect-exec", "personality", "memory"),
    *("become-dumpable", "int80", "host-name", "rdtsc", "clock", *SECRET),
]


def judged(name: str, evidence: bytes, ended: Ended = Ended.FINISHED, number: int = 0) -> bool:
    scene = Scene()  # not set up: it has a secret and nothing else
    evidence = evidence.replace(b"SECRET", scene.secret.encode())
    probe: Probe = PROBES[name]
    return probe.effective(scene, Result(ended, 0, number=number, evidence=evidence))


@pytest.mark.parametrize("name", EVIDENCE)
def test_call_that_brought_something_else_is_no_success(name: str) -> None:
    assert not judged(name, b"something else")


@pytest.mark.parametrize("name", SECRET)
def test_secret_brought_back_is_success(name: str) -> None:
    assert judged(name, b"before SECRET after")


@pytest.mark.parametrize("name", ["read-passwd", "read-proc", "list-directory"])
def test_call_that_brought_nothing_is_no_success(name: str) -> None:
    assert not judged(name, b"")
    assert judged(name, b"something")


@pytest.mark.parametrize("name", PROBES)
def test_call_that_failed_is_no_success_whatever_it_brought(name: str) -> None:
    assert not judged(name, b"something", Ended.FAILED)


def test_program_that_ran_is_known_by_its_status() -> None:
    assert judged("execve", b"", Ended.EXITED, 77)
    assert not judged("execve", b"", Ended.EXITED, 1)
    assert not judged("execve", b"", Ended.KILLED, 77)


def test_two_scenes_have_two_secrets() -> None:
    assert Scene().secret != Scene().secret
