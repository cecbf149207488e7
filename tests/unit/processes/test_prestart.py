"""The spawner that is started early: who gets it, and that nobody's is ended."""

from __future__ import annotations

import pytest

from kvmbox import early
from kvmbox.errors import SandboxError
from kvmbox.processes import prestart
from kvmbox.sandbox.linux import SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT


class FakeSpawner:
    """Records how it was started, and whether it was closed."""

    made: list[FakeSpawner]
    refused = False

    def __init__(self, options: dict[str, int]) -> None:
        self.options = options
        self.closed = 0

    @classmethod
    def start(cls, **options: int) -> FakeSpawner:
        if cls.refused:
            raise SandboxError("no")
        cls.made.append(cls(options))
        return cls.made[-1]

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def spawner(monkeypatch: pytest.MonkeyPatch) -> type[FakeSpawner]:
    monkeypatch.setattr(FakeSpawner, "made", [], raising=False)
    monkeypatch.setattr(FakeSpawner, "refused", False)
    monkeypatch.setattr(prestart, "SpawnerClient", FakeSpawner)
    monkeypatch.setattr(prestart, "_waiting", [])
    monkeypatch.setattr(early, "exit_callbacks", [])
    return FakeSpawner


def take(**wanted: int) -> object:
    return prestart.take(**wanted)


def test_take_after_start_gives_the_one_that_is_up() -> None:
    prestart.start()
    assert take() is FakeSpawner.made[0]
    assert len(FakeSpawner.made) == 1


def test_take_with_the_defaults_spelled_out_gives_the_one_that_is_up() -> None:
    prestart.start()
    assert take(seccomp=SECCOMP_MODE_FILTER, without=0) is FakeSpawner.made[0]


def test_take_without_start_starts_one() -> None:
    assert take(seccomp=SECCOMP_MODE_STRICT, without=4) is FakeSpawner.made[0]
    assert FakeSpawner.made[0].options == {"seccomp": SECCOMP_MODE_STRICT, "without": 4}


def test_take_twice_gives_two() -> None:
    prestart.start()
    assert take() is not take()


@pytest.mark.parametrize("wanted", [{"seccomp": SECCOMP_MODE_STRICT}, {"seccomp": 0}, {"without": 1}])
def test_take_another_kind_ends_the_early_one(wanted: dict[str, int]) -> None:
    prestart.start()
    taken = take(**wanted)
    first, second = FakeSpawner.made
    assert (taken, first.closed, second.closed) == (second, 1, 0)


def test_exit_callbacks_end_what_nobody_took_and_nothing_else() -> None:
    prestart.start()
    for end in early.exit_callbacks * 2:
        end()
    assert FakeSpawner.made[0].closed == 1
    prestart.start()
    prestart.take()
    for end in early.exit_callbacks:
        end()
    assert FakeSpawner.made[1].closed == 0


def test_start_refused_is_left_for_take_to_report() -> None:
    FakeSpawner.refused = True
    prestart.start()
    assert early.exit_callbacks == []
    with pytest.raises(SandboxError):
        prestart.take()
