"""How long a start is waited for: by slices in which nothing came, and not by the clock."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kvmbox.base.errors import SandboxError
from kvmbox.remote.process import spawner_client
from kvmbox.remote.process.spawner_client import (
    READY_TIMEOUT_NS,
    SLICE_NS,
    DeviceProcess,
    SpawnerChild,
    SpawnerClient,
)

HOUR_NS = 3600 * 10**9


class Silent(SpawnerClient):
    """A spawner that says nothing, on a host that stands still for an hour in the first slice."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, process: DeviceProcess, *, ready_after: int) -> None:
        super().__init__(SpawnerChild(0, -1), -1, ())
        self.layers = 1
        self.slices = 0
        self.now = 0
        self._process = process
        self._ready_after = ready_after
        monkeypatch.setattr(spawner_client, "time", SimpleNamespace(monotonic_ns=lambda: self.now))

    def _pump(self, deadline: int | None = None) -> bool:
        assert deadline is not None
        self.slices += 1
        self.now = deadline + (HOUR_NS if self.slices == 1 else 0)
        if self.slices == self._ready_after:
            self._process.layers = 1
        return False


def test_pause_of_the_host_ends_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    process = DeviceProcess("uart")
    client = Silent(monkeypatch, process, ready_after=3)
    client.wait_ready(process)
    assert client.slices == 3


def test_process_that_is_never_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    process = DeviceProcess("uart")
    client = Silent(monkeypatch, process, ready_after=10**6)
    with pytest.raises(SandboxError, match="'uart': it was not ready within 20000 ms"):
        client.wait_ready(process)
    assert client.slices == READY_TIMEOUT_NS // SLICE_NS + 1
