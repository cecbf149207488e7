"""The way of a spawner that a template clones, on a host that refuses it a namespace, without taking any."""

from __future__ import annotations

import errno
import os

import pytest

from kvmbox.jail import layers, linux, namespaces
from kvmbox.jail.namespaces import Cloned

EVERY = sum(namespaces.FLAGS.values())


@pytest.fixture(params=namespaces.FLAGS, ids=layers.NAMES.get)
def refused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The layer that no process can be cloned into."""
    layer: int = request.param

    def clone(flags: int) -> int:
        if flags & namespaces.FLAGS[layer]:
            raise OSError(errno.ENOSPC, "clone: No space left on device")
        return 1

    monkeypatch.setattr(linux, "has_capability", lambda number: True)
    monkeypatch.setattr(linux, "clone", clone)
    monkeypatch.setattr(os, "waitpid", lambda pid, options: (pid, 0))
    return layer


def test_namespace_that_cannot_be_cloned_is_left_out_alone(refused: int) -> None:
    way = Cloned()
    assert way.cloned_into == EVERY
    way.leave_out()
    assert way.cloned_into == EVERY & ~namespaces.FLAGS[refused]


def test_namespace_that_was_not_cloned_is_asked_for_unless_it_is_for_children(
    refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(namespaces, "unshare", asked.append)
    way = Cloned()
    way.leave_out()
    isolation = namespaces.Isolation(0)
    for layer, flag in namespaces.FLAGS.items():
        isolation.attempt(layer, way.enter, flag)
    missing = refused & layers.PID_NS
    assert isolation.applied == sum(namespaces.FLAGS) & ~missing
    assert sum(asked) == (0 if missing else namespaces.FLAGS[refused])
