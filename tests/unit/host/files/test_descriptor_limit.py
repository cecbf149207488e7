"""The limit of open files: raised if it can be, refused in words if not."""

from __future__ import annotations

import resource

import pytest

from kvmbox.base.errors import StartError
from kvmbox.host.files import descriptor_limit

MANY = resource.RLIM_INFINITY


class Limits:
    """Plays getrlimit and setrlimit."""

    def __init__(self, soft: int, hard: int) -> None:
        self.now = (soft, hard)

    def get(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.now

    def set(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        self.now = limits


def play(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> Limits:
    limits = Limits(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)
    return limits


@pytest.mark.parametrize(
    ("soft", "hard", "after"), [(20, 4096, 128), (20, 128, 128), (20, MANY, 128), (128, 128, 128),
                                (1024, 4096, 1024), (MANY, MANY, MANY)],
)  # fmt: skip
def test_soft_limit_is_raised_as_far_as_needed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, after: int
) -> None:
    limits = play(monkeypatch, soft, hard)
    descriptor_limit.allow_enough()
    assert limits.now == (after, hard)
    assert descriptor_limit.enough()[0]


def test_hard_limit_below_what_is_needed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = play(monkeypatch, 20, 127)
    with pytest.raises(StartError, match="may open 127 files, and needs 128") as caught:
        descriptor_limit.allow_enough()
    assert "ulimit -n" in str(caught.value.hint)
    assert limits.now == (20, 127)
    assert descriptor_limit.enough() == (False, "127 may be open, 128 are needed")
