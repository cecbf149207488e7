"""What an ending means, and whose doing it was, decided from values alone."""

from __future__ import annotations

import errno
import signal

import pytest

from kvmbox.jail import layers
from kvmbox.jail.linux import SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT
from kvmbox.tools.audit.attack_result import (
    Ended,
    ProbeVerdict,
    Result,
    direct_layers,
    stopped_by,
    without_dependents,
)
from kvmbox.tools.audit.probe_catalogue import Probe
from kvmbox.tools.audit.run_audit import judge

EVERYTHING = sum(layers.NAMES)
PROBE = Probe("p", "g", "tries", "nothing")
EFFECTIVE = Result(Ended.FINISHED, 0, effective=True)
INEFFECTIVE = Result(Ended.FAILED, 0, call="openat", number=errno.EACCES)


def failed(call: str, number: int, in_force: int = EVERYTHING) -> Result:
    return Result(Ended.FAILED, in_force, call=call, number=number)


@pytest.mark.parametrize(
    ("result", "mode", "expected"),
    [
        (Result(Ended.FORBIDDEN, EVERYTHING, call="openat"), SECCOMP_MODE_FILTER, layers.SECCOMP),
        (Result(Ended.KILLED, EVERYTHING, number=signal.SIGSYS), SECCOMP_MODE_FILTER, layers.SECCOMP),
        (Result(Ended.KILLED, EVERYTHING, number=signal.SIGKILL), SECCOMP_MODE_FILTER, 0),
        (Result(Ended.KILLED, EVERYTHING, number=signal.SIGSEGV), SECCOMP_MODE_FILTER, 0),
        (Result(Ended.KILLED, EVERYTHING, number=signal.SIGKILL), SECCOMP_MODE_STRICT, layers.SECCOMP),
        (Result(Ended.KILLED, EVERYTHING, number=signal.SIGSEGV), SECCOMP_MODE_STRICT, layers.SECCOMP),
        (Result(Ended.KILLED, layers.RLIMITS, number=signal.SIGSYS), SECCOMP_MODE_DISABLED, 0),
        (failed("openat", errno.EMFILE), SECCOMP_MODE_FILTER, layers.RLIMITS),
        (failed("fork", errno.EAGAIN), SECCOMP_MODE_FILTER, layers.RLIMITS),
        (failed("connect", errno.EAGAIN), SECCOMP_MODE_FILTER, 0),
        (failed("mmap", errno.ENOMEM), SECCOMP_MODE_FILTER, layers.RLIMITS),
        (failed("mmap", errno.ENOMEM, layers.SECCOMP), SECCOMP_MODE_FILTER, 0),
        (failed("write", errno.EBADF), SECCOMP_MODE_FILTER, layers.CLOSED_DESCRIPTORS),
        (failed("openat", errno.EACCES), SECCOMP_MODE_FILTER, 0),
        (Result(Ended.FINISHED, EVERYTHING), SECCOMP_MODE_FILTER, 0),
    ],
)
def test_ending_beyond_doubt_names_its_layer(result: Result, mode: int, expected: int) -> None:
    assert direct_layers(result, mode) == expected


def test_ending_that_a_layer_alone_gives_too_is_that_layers() -> None:
    result = failed("openat", errno.EACCES)
    alone = {
        layers.LANDLOCK: failed("openat", errno.EACCES, layers.LANDLOCK),
        layers.OTHER_UID: failed("openat", errno.EACCES, layers.OTHER_UID),
        layers.MOUNT_NS: failed("openat", errno.ENOENT, layers.MOUNT_NS),
        layers.RLIMITS: EFFECTIVE,
    }

    assert stopped_by(result, SECCOMP_MODE_DISABLED, alone) == layers.LANDLOCK | layers.OTHER_UID


def test_layer_that_is_not_in_force_has_stopped_nothing() -> None:
    result = failed("openat", errno.EACCES, EVERYTHING & ~layers.LANDLOCK)

    assert stopped_by(result, SECCOMP_MODE_DISABLED, {layers.LANDLOCK: result}) == 0


def test_refusal_of_the_channel_is_no_layers_doing() -> None:
    refused = Result(Ended.REFUSED, EVERYTHING)

    assert stopped_by(refused, SECCOMP_MODE_FILTER, {layers.LANDLOCK: refused}) == 0


def test_layer_that_had_the_stopping_one_beside_it_is_not_named() -> None:
    below = {
        layers.LANDLOCK_SCOPES: layers.LANDLOCK | layers.LANDLOCK_NET,
        layers.LANDLOCK_NET: layers.LANDLOCK,
    }

    assert (
        without_dependents(layers.LANDLOCK_NET | layers.LANDLOCK_SCOPES | layers.PID_NS, below)
        == layers.LANDLOCK_NET | layers.PID_NS
    )


@pytest.mark.parametrize(
    ("result", "control", "stoppers", "expected"),
    [
        (EFFECTIVE, EFFECTIVE, 0, ProbeVerdict.ESCAPED),
        (EFFECTIVE, INEFFECTIVE, 0, ProbeVerdict.ESCAPED),
        (INEFFECTIVE, EFFECTIVE, layers.LANDLOCK, ProbeVerdict.CONTAINED),
        (INEFFECTIVE, EFFECTIVE, 0, ProbeVerdict.CONTAINED),
        (INEFFECTIVE, INEFFECTIVE, layers.LANDLOCK, ProbeVerdict.IMPOSSIBLE),
        (Result(Ended.SILENT, 0), EFFECTIVE, 0, ProbeVerdict.UNCLEAR),
        (Result(Ended.SILENT, 0), INEFFECTIVE, 0, ProbeVerdict.UNCLEAR),
        (Result(Ended.UNBEGUN, 0), EFFECTIVE, layers.SECCOMP, ProbeVerdict.UNCLEAR),
        (Result(Ended.KILLED, 0, number=11), EFFECTIVE, 0, ProbeVerdict.UNCLEAR),
        (Result(Ended.EXITED, 0, number=1), EFFECTIVE, 0, ProbeVerdict.UNCLEAR),
        (Result(Ended.KILLED, 0, number=31), EFFECTIVE, layers.SECCOMP, ProbeVerdict.CONTAINED),
    ],
)
def test_verdict_of_a_result(result: Result, control: Result, stoppers: int, expected: ProbeVerdict) -> None:
    assert judge(PROBE, result, control, stoppers) is expected


def test_verdict_of_what_no_layer_claims_to_stop_is_open() -> None:
    probe = Probe("p", "g", "tries", "nothing", open_reason="nobody stops it")

    assert judge(probe, EFFECTIVE, EFFECTIVE, 0) is ProbeVerdict.OPEN
    assert judge(probe, INEFFECTIVE, EFFECTIVE, 0) is ProbeVerdict.CONTAINED


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (EFFECTIVE, "succeeded"),
        (Result(Ended.FINISHED, 0), "came to nothing"),
        (failed("openat", errno.EACCES), "openat: EACCES"),
        (Result(Ended.FAILED, 0, call="fork", number=11, evidence=b"3 of 64"), "fork: EAGAIN after 3 of 64"),
        (Result(Ended.FORBIDDEN, 0, call="openat"), "killed at openat"),
        (Result(Ended.KILLED, 0, number=31), "killed by SIGSYS"),
        (Result(Ended.KILLED, 0, number=50), "killed by signal 50"),
        (Result(Ended.EXITED, 0, number=3), "exited with status 3"),
        (Result(Ended.SILENT, 0), "no answer in time"),
    ],
)
def test_ending_in_words(result: Result, expected: str) -> None:
    assert str(result) == expected
