"""The VMM's own confinement: what is left of each right, in a process that gives them up for the test."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kvmbox
from kvmbox.jail import landlock, layers, linux
from kvmbox.sandbox import scope
from tests.support.patience import patience

PROGRAM = str(Path(__file__).parent / "sandbox_payload" / "confined.py")
ROOT = str(Path(kvmbox.__file__).parent.parent)

NEEDED = {
    "read a module", "import late", "traceback", "read /proc", "memory", "thread", "socketpair", "pipe",
    "memfd", "signal the spawner", "tgkill ourselves", "descriptor flags",
}  # fmt: skip
SIGNALS = {
    "kill a stranger", "stop a stranger", "stop everybody", "tkill a stranger", "tgkill a stranger",
    "queue for a stranger", "signal by pidfd", "signal by /proc",
}  # fmt: skip
OWNERS = {
    "own by F_SETOWN", "own by F_SETOWN_EX", "own by FIOSETOWN", "own by SIOCSPGRP", "choose the signal",
    "signals by F_SETFL", "signals by FIOASYNC",
}  # fmt: skip
BY_FILTER = SIGNALS | OWNERS | {
    "datagram socket",
    "write a module", "create a file", "fork", "exec", "socket", "ptrace", "process_vm_readv", "bpf",
    "unshare", "kill", "type on the terminal", "executable memory",
}  # fmt: skip
BY_LANDLOCK = {"read /etc/passwd", "list /"}
NOT_IN_VCPU = {"thread", "signal the spawner"}
SCOPED = landlock.abi() >= landlock.SCOPES_ABI


def confined(*, without: int = 0, keep: int = 0, extra: tuple[str, ...] = ("scoped",)) -> dict[str, Any]:
    """What the program reports, without a label; test_run_label has that."""
    command = [sys.executable, PROGRAM, ROOT, str(without | layers.VMM_LABEL), str(keep), *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=patience(60), cwd="/")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    result.get("missing", {}).pop(layers.VMM_NAMES[layers.VMM_LABEL], None)
    return result


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return confined()


def test_confined_vmm_tells_every_layer(whole: dict[str, Any]) -> None:
    expected = layers.VMM & ~layers.VMM_LABEL
    if not landlock.abi():
        expected &= ~layers.VMM_LANDLOCK
    if not SCOPED:
        expected &= ~layers.VMM_SCOPES
    assert whole["applied"] == layers.names(expected)


@pytest.mark.parametrize("what", sorted(NEEDED))
def test_confined_vmm_can_do_what_a_run_needs(whole: dict[str, Any], what: str) -> None:
    assert whole["main"][what] == 0
    assert whole["main again"][what] == 0


@pytest.mark.parametrize("what", sorted(BY_FILTER))
def test_confined_vmm_is_refused_by_the_filter(whole: dict[str, Any], what: str) -> None:
    assert whole["main"][what] == errno.ENOSYS
    assert whole["vcpu"][what] == errno.ENOSYS


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
@pytest.mark.parametrize("what", sorted(BY_LANDLOCK))
def test_confined_vmm_is_refused_by_landlock(whole: dict[str, Any], what: str) -> None:
    assert whole["main"][what] == errno.EACCES
    assert whole["vcpu"][what] == errno.EACCES


def test_vcpu_thread_may_do_less_than_the_main_thread(whole: dict[str, Any]) -> None:
    refused = {what for what in NEEDED if whole["vcpu"][what] != 0}
    assert refused == NOT_IN_VCPU


def test_confined_vmm_has_no_capability(whole: dict[str, Any]) -> None:
    assert whole["capabilities"] == []


@pytest.mark.root
def test_confined_vmm_keeps_the_right_to_kill_where_it_is_asked_to() -> None:
    assert confined(keep=1 << linux.CAP_KILL)["capabilities"] == [linux.CAP_KILL]


def test_confined_vmm_has_killed_its_spawner_and_nobody_else(whole: dict[str, Any]) -> None:
    assert whole["stranger lives"]


def test_descriptor_that_signals_the_spawner_cannot_be_put_in_its_place_by_another(
    whole: dict[str, Any],
) -> None:
    assert not whole["number taken"]


@pytest.mark.skipif(not SCOPED, reason="Landlock of this kernel has no scope for signals")
def test_without_the_filter_the_scope_still_guards_strangers() -> None:
    main = confined(without=layers.VMM_SECCOMP)["main"]
    by_scope = SIGNALS - {"stop everybody", "tkill a stranger", "queue for a stranger"}
    assert {what: main[what] for what in by_scope} == dict.fromkeys(by_scope, errno.EPERM)
    assert {what: main[what] for what in ("signal the spawner", "tgkill ourselves")} == {
        "signal the spawner": 0,
        "tgkill ourselves": 0,
    }


def test_scope_that_was_not_taken_first_is_told_of() -> None:
    result = confined(extra=())
    assert result["missing"] == {"vmm-scopes": scope.NOT_TAKEN}
    assert {result["vcpu"][what] for what in SIGNALS} == {errno.ENOSYS}  # the filter does not need it


def test_attempts_without_any_confinement_work() -> None:
    # The control: it is nothing but the confinement that refuses them.
    result = confined(without=layers.VMM, extra=())
    assert result["applied"] == []
    # Of what they are given.
    faulty = {
        "exec", "ptrace", "bpf", "type on the terminal", "process_vm_readv", "queue for a stranger",
    }  # fmt: skip
    allowed = {what for what, number in result["main"].items() if number == 0}
    assert allowed >= (NEEDED | BY_FILTER | BY_LANDLOCK) - faulty - {"unshare"}
    assert errno.ENOSYS not in result["main"].values()


def test_without_the_filter_landlock_still_guards_files() -> None:
    result = confined(without=layers.VMM_SECCOMP)
    assert result["missing"] == {"vmm-seccomp": "left out on request"}
    assert {what: result["main"][what] for what in ("read /etc/passwd", "write a module", "fork")} == {
        "read /etc/passwd": errno.EACCES,
        "write a module": errno.EACCES,
        "fork": 0,
    }


def test_without_landlock_the_filter_still_guards_writing() -> None:
    main = confined(without=layers.VMM_LANDLOCK)["main"]
    assert {what: main[what] for what in ("read /etc/passwd", "write a module", "create a file")} == {
        "read /etc/passwd": 0,
        "write a module": errno.ENOSYS,
        "create a file": errno.ENOSYS,
    }


def test_thread_that_was_there_before_is_told_of() -> None:
    result = confined(extra=("early-thread", "scoped"))
    if landlock.abi() < landlock.EVERY_THREAD_ABI:
        assert result["missing"]["vmm-landlock"] == "1 of its threads started before, and have none of it"
        assert result["early"]["read /etc/passwd"] == 0
    assert result["main"]["read /etc/passwd"] == errno.EACCES  # the main thread has it all the same
    assert {result["early"][what] for what in BY_FILTER} == {errno.ENOSYS}  # the filter is for all of them


def test_layer_required_and_not_to_be_had_is_an_error() -> None:
    result = confined(without=layers.VMM_LANDLOCK, extra=("require", "scoped"))
    assert result == {"error": "sandbox layer missing: vmm-landlock (left out on request)"}
