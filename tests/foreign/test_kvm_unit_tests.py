"""Each entry of kvm-unit-tests, where KUT names a built tree, has the verdict that belongs to this backend.

A tree is built by its own `./configure --arch=x86_64` and `make`. `kvm_unit_tests.toml` has the verdicts; an
entry that the table does not know must at least not make kvmbox itself fail.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.foreign.kvm_unit_tests import Entry, Verdict, entries, kvmbox_arguments, kvmbox_verdict, why
from tests.foreign.observe import observe
from tests.support.guest_table import backend
from tests.support.patience import patience
from tests.support.runs import KVMBOX

pytestmark = [pytest.mark.kvm, pytest.mark.thorough]

VARIABLE: Final = "KUT"
TREE: Final = Path(os.environ.get(VARIABLE, ""))
ENTRIES: Final = entries(TREE) if VARIABLE in os.environ else []
EXPECTED: Final[dict[str, dict[str, list[str]]]] = tomllib.loads(
    Path(__file__).with_name("kvm_unit_tests.toml").read_text()
)


def expected(name: str) -> Verdict | None:
    """The verdict that the table has for an entry with this host's backend of KVM."""
    for verdict, names in EXPECTED.get(backend(), {}).items():
        if name in names:
            return Verdict(verdict)
    return None


@pytest.mark.skipif(not ENTRIES, reason=f"{VARIABLE} names no built tree of kvm-unit-tests")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_kvm_unit_test_has_the_verdict_of_this_backend(entry: Entry) -> None:
    if reason := entry.left_out():
        pytest.skip(reason)
    wanted = expected(entry.name)
    if wanted is Verdict.TIMEOUT:
        pytest.skip("does not end with this backend, under QEMU neither")

    seen = observe([*KVMBOX, *kvmbox_arguments(entry, TREE)], timeout_s=patience(entry.timeout_s))

    verdict = kvmbox_verdict(seen)
    story = f"{verdict}: {why(seen)}\n{seen.output[-2000:]}\n{seen.errors[-2000:]}"
    assert verdict is not Verdict.BROKEN, story
    if wanted is not None:
        assert verdict is wanted, story
