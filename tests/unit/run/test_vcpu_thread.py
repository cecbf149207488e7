"""The thread of a vCPU: what the host may refuse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvmbox.errors import KvmboxError
from kvmbox.run.vcpu import VcpuThread
from tests.support.no_threads import refuse_threads


def test_thread_that_the_host_refuses_is_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = VcpuThread(
        cast(Any, SimpleNamespace(index=1)),
        cast(Any, SimpleNamespace()),
        cpu=None,
        confine=lambda: None,
        ended=lambda thread: None,
    )

    refuse_threads(monkeypatch)
    with pytest.raises(KvmboxError, match="thread of vCPU 1: can't start new thread") as caught:
        thread.start()
    assert caught.value.hint is not None
    assert "ulimit -u" in caught.value.hint
    assert not thread.is_alive
    assert thread.join(0.0)  # there is nothing to wait for
