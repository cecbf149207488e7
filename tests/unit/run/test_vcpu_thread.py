"""The thread of a vCPU: its states, and what the host may refuse."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvmbox.base.errors import KvmboxError
from kvmbox.run.vcpu.handle import VcpuThread
from kvmbox.run.vcpu.run_state import Attention, VcpuState
from tests.support.no_threads import refuse_threads


def test_thread_that_the_host_refuses_is_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = VcpuThread(
        cast(Any, SimpleNamespace(index=1, kick=lambda: None)),
        Attention(),
        notify=lambda: None,
        cpu=None,
        confine=lambda: None,
        ended=lambda thread: None,
    )

    refuse_threads(monkeypatch)
    with pytest.raises(KvmboxError, match="thread of vCPU 1: can't start new thread") as caught:
        thread.start()
    assert caught.value.hint is not None
    assert "ulimit -u" in caught.value.hint
    assert thread.state is VcpuState.CREATED
    assert not thread.is_alive
    assert thread.join(0.0)  # there is nothing to wait for


def test_thread_goes_from_created_to_ended_also_by_an_error() -> None:
    seen: list[VcpuState] = []
    vcpu = SimpleNamespace(index=0, kick=lambda: None, bind_thread=lambda: None, unbind_thread=lambda: None)
    started = threading.Event()

    def run() -> None:
        started.wait(30)
        raise KvmboxError("planted")

    thread = VcpuThread(
        cast(Any, vcpu),
        Attention(),
        notify=lambda: None,
        cpu=None,
        confine=lambda: None,
        ended=lambda thread: seen.append(thread.state),
    )
    thread.loop = cast(Any, SimpleNamespace(run=run))
    assert (thread.state, thread.is_alive, thread.is_paused) == (VcpuState.CREATED, False, True)
    thread.start()
    assert (thread.state, thread.is_alive, thread.is_paused) == (VcpuState.RUNNING, True, False)
    started.set()
    assert thread.join(30)
    assert seen == [VcpuState.RUNNING]  # until it touches nothing any more
    assert (thread.state, thread.is_alive, thread.is_paused) == (VcpuState.ENDED, False, True)
    assert str(thread.error) == "planted"
