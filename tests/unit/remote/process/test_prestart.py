"""The spawner that is started early: who gets it, and that nobody's is ended."""

from __future__ import annotations

from typing import Any

import pytest

from kvmbox.base.errors import SandboxError
from kvmbox.host.process import early_signals
from kvmbox.jail.linux import SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT
from kvmbox.remote.process.prestart import Prestart
from kvmbox.remote.process.spawner_client import SpawnerClient


class FakeSpawner(SpawnerClient):
    """Records how it was started, and whether it was closed."""

    made: list[FakeSpawner]
    refused = False

    def __init__(self, options: dict[str, int]) -> None:
        self.options = options
        self.closed = 0

    @classmethod
    def start(cls, **options: Any) -> FakeSpawner:
        if cls.refused:
            raise SandboxError("no")
        cls.made.append(cls(options))
        return cls.made[-1]

    def close(self, *_: object, **__: object) -> None:
        self.closed += 1


@pytest.fixture
def spawner() -> type[FakeSpawner]:
    class Spawner(FakeSpawner):
        made = []  # noqa: RUF012 - of this test

    return Spawner


@pytest.fixture
def prestart(spawner: type[FakeSpawner], monkeypatch: pytest.MonkeyPatch) -> Prestart:
    monkeypatch.setattr(early_signals, "exit_callbacks", [])
    return Prestart(spawner)


def test_take_after_start_gives_the_one_that_is_up(prestart: Prestart, spawner: type[FakeSpawner]) -> None:
    prestart.start()
    assert prestart.take() is spawner.made[0]
    assert len(spawner.made) == 1


def test_take_with_the_defaults_spelled_out_gives_the_one_that_is_up(
    prestart: Prestart, spawner: type[FakeSpawner]
) -> None:
    prestart.start()
    assert prestart.take(seccomp=SECCOMP_MODE_FILTER, without=0) is spawner.made[0]


def test_take_without_start_starts_one(prestart: Prestart, spawner: type[FakeSpawner]) -> None:
    assert prestart.take(seccomp=SECCOMP_MODE_STRICT, without=4) is spawner.made[0]
    assert spawner.made[0].options == {"seccomp": SECCOMP_MODE_STRICT, "without": 4}


def test_take_twice_gives_two(prestart: Prestart, spawner: type[FakeSpawner]) -> None:
    prestart.start()
    assert prestart.take() is not prestart.take()


@pytest.mark.parametrize("wanted", [{"seccomp": SECCOMP_MODE_STRICT}, {"seccomp": 0}, {"without": 1}])
def test_take_another_kind_ends_the_early_one(
    wanted: dict[str, int], prestart: Prestart, spawner: type[FakeSpawner]
) -> None:
    prestart.start()
    taken = prestart.take(**wanted)
    first, second = spawner.made
    assert (taken, first.closed, second.closed) == (second, 1, 0)


def test_exit_callbacks_end_what_nobody_took_and_nothing_else(
    prestart: Prestart, spawner: type[FakeSpawner]
) -> None:
    prestart.start()
    for end in early_signals.exit_callbacks * 2:
        end()
    assert spawner.made[0].closed == 1
    prestart.start()
    prestart.take()
    for end in early_signals.exit_callbacks:
        end()
    assert spawner.made[1].closed == 0


def test_start_refused_is_left_for_take_to_report(prestart: Prestart, spawner: type[FakeSpawner]) -> None:
    spawner.refused = True
    prestart.start()
    assert early_signals.exit_callbacks == []
    with pytest.raises(SandboxError):
        prestart.take()
