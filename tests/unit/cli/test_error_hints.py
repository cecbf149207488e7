"""Errors that bring no hint: each gets one of its kind, and those of a host's failure do not."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from kvmbox.base.errors import (
    DeviceProcessError,
    KvmboxError,
    KvmError,
    RecordingError,
    SandboxError,
    StartError,
    UsageError,
)
from kvmbox.cli.error_hints import advice
from kvmbox.cli.exit_status import guarded


def caused(error: KvmboxError, number: int) -> KvmboxError:
    error.__cause__ = OSError(number, os.strerror(number))
    return error


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (UsageError("x"), "try 'kvmbox trace --help'"),
        (RecordingError("x"), "record the run again"),
        (caused(StartError("x"), errno.ENOENT), "check the path"),
        (caused(StartError("x"), errno.EEXIST), "choose another name"),
        (caused(RecordingError("x"), errno.EISDIR), "name a file"),
        (caused(StartError("x"), errno.EPROTO), "try 'kvmbox trace --help'"),
        (caused(KvmError("x"), errno.ENOENT), "kvmbox doctor"),
        (caused(SandboxError("x"), errno.EAGAIN), "ulimit -u"),
        (caused(StartError("x"), errno.EAGAIN), "ulimit -u"),
        (DeviceProcessError("uart", "died"), None),
    ],
)
def test_hint_is_that_of_the_kind(
    monkeypatch: pytest.MonkeyPatch, error: KvmboxError, hint: str | None
) -> None:
    monkeypatch.setattr("sys.argv", ["kvmbox", "trace", "file"])
    found = advice(error)
    assert found is None if hint is None else hint in (found or "")


def ends_with(error: KvmboxError) -> int:
    def work() -> None:
        raise error

    return guarded(work, debug=False, raising=False)


def test_hint_of_the_error_itself_comes_first(capfd: pytest.CaptureFixture[str]) -> None:
    assert ends_with(UsageError("no", hint="do it")) == 2
    assert capfd.readouterr().err == "kvmbox: error: no\nhint: do it\n"


def test_error_is_told_where_the_hint_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "kvmbox.cli.error_hints", None)
    assert ends_with(UsageError("no")) == 2
    assert capfd.readouterr().err == "kvmbox: error: no\n"


def test_error_is_told_where_making_the_hint_fails(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def advice(_error: KvmboxError) -> str:
        raise EOFError("marshal data too short")

    monkeypatch.setattr("kvmbox.cli.error_hints.advice", advice)
    assert ends_with(StartError("no")) == 4
    assert capfd.readouterr().err == "kvmbox: error: no\n"
