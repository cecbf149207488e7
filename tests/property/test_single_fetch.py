"""Compiled code looks once at what others may change: nothing changes if each load spoils what it loads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvmbox.base.compiled import why_not_built
from tests.support.spoiled import spoil
from tools.scratch import Scratch

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(why_not_built() is not None, reason=f"compiled: {why_not_built()}"),
]


@pytest.fixture(name="spoiling", scope="module")
def _spoiling() -> Iterator[Scratch]:
    with Scratch() as scratch:
        spoil(scratch)
        scratch.build()
        yield scratch


def run(scratch: Scratch, what: str) -> None:
    done = scratch.run(["-m", "tests.support.spoiled", what], 600)
    assert (done.returncode, done.stderr) == (0, "")


def test_compiled_walker_reads_each_byte_once(spoiling: Scratch) -> None:
    run(spoiling, "rings")


def test_compiled_transport_reads_a_reply_once(spoiling: Scratch) -> None:
    run(spoiling, "page")
