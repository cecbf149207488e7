"""Threads that the host refuses: the error names the thread and the limit, and the clean-up works on."""

from __future__ import annotations

import resource
import threading

import pytest

from kvmbox.base.errors import KvmboxError
from kvmbox.base.memory import GuestMemory
from kvmbox.host.console.output_stream import OutputStream
from kvmbox.host.disk.transfers import TransferThread
from kvmbox.host.process import threads
from kvmbox.host.process.threads import start_thread, why_no_memory, why_no_thread
from tests.support.no_threads import refuse_threads


def test_refused_thread_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads(monkeypatch)
    with pytest.raises(KvmboxError, match="cannot start the thread of tests: can't start") as caught:
        start_thread(threading.Thread(target=print).start, "the thread of tests")
    assert caught.value.hint is not None
    assert caught.value.exit_status == 14


def test_thread_that_could_not_come_to_life_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "ADDRESS_SPACE", 160 << 20)
    monkeypatch.setattr(threads, "ROOM", 1 << 60)
    thread = threading.Thread(target=print)
    with pytest.raises(KvmboxError, match="cannot start the thread of tests: Cannot allocate memory"):
        start_thread(thread.start, "the thread of tests")
    assert thread.ident is None


def test_limit_of_address_space_is_named_where_there_is_one() -> None:
    assert why_no_memory(resource.RLIM_INFINITY) is None
    assert "ulimit -u" in why_no_thread(resource.RLIM_INFINITY)
    for hint in (why_no_memory(160 << 20), why_no_thread(160 << 20)):
        assert hint is not None
        assert "limited to 160 MiB (ulimit -v)" in hint


def test_stream_without_a_thread_is_flushed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads(monkeypatch)
    stream = OutputStream("stdout", -1, failed=lambda _: None)
    for attempt in (stream.start, lambda: stream.append(b"lost")):
        with pytest.raises(KvmboxError, match="thread that writes the output of stdout"):
            attempt()
    assert stream.flush(0.0) == 0


def test_transfers_without_a_thread_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_threads(monkeypatch)
    memory = GuestMemory(1 << 20)
    transfers = TransferThread(memory, lambda: None)
    with pytest.raises(KvmboxError, match="thread that transfers data"):
        transfers.start()
    assert transfers.close()
    memory.close()
