"""Guests that others wrote get as far as KVM on this host allows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.foreign.guests import GUESTS, Guest
from tests.foreign.observe import End, observe
from tests.lab.packages import Unavailable
from tests.support.guest_table import backend
from tests.support.patience import patience
from tests.support.runs import KVMBOX

pytestmark = [pytest.mark.kvm, pytest.mark.thorough]


@pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)
def test_foreign_guest_gets_as_far_as_kvm_here_allows(guest: Guest, tmp_path: Path) -> None:
    limit = guest.limit(backend())
    if not limit.milestones and limit.status is None:
        pytest.skip(f"{limit.why}, and KVM's backend here is {backend()}: make test-svm runs it")
    try:
        start = guest.start(tmp_path)
    except Unavailable as problem:
        pytest.skip(str(problem))

    seen = observe(
        [*KVMBOX, "run", *start.kvmbox],
        timeout_s=patience(guest.timeout_s),
        typed=guest.typed,
        enough=lambda output, _: limit.status is None and guest.reached(output) >= limit.milestones,
    )

    story = f"{seen.end.value}, status {seen.status}\n{seen.output[-2000:]}\n{seen.errors[-2000:]}"
    assert guest.reached(seen.output) >= limit.milestones, story
    if limit.status is not None:
        assert (seen.end, seen.status) == (End.ITSELF, limit.status), story
        assert re.search(limit.says, seen.errors), story
