"""Modules whose code is kept in memory: what is kept, and that models need nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import kvmbox
from kvmbox.remote.process.spawner_client import INTERPRETER_FLAGS
from tests.support.shared import bundle_of_kvmbox

PACKAGE: Final = Path(kvmbox.__file__).parent

BEGIN: Final = """
import os, sys
from kvmbox.base import bytecode
bytecode.BUNDLE = {bundle!r}
bytecode.use()
import kvmbox.jail.spawner, kvmbox.jail.device_process
from kvmbox.contract import catalog
from kvmbox.jail import kept_modules as kept
"""

LOAD: Final = """
assert kept.keep("contract", "devices")
bytecode.leave()
sys.path, sys.path_importer_cache = [], {}
known = set(sys.modules)
catalog.load_all()
print(*set(sys.modules) - known)
"""


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of_kvmbox(tmp_path_factory)


def printed(content: Path, code: str) -> list[str]:
    """The words that `code` prints in an interpreter that has loaded what a spawner loads."""
    path = f"import sys; sys.path += {[str(PACKAGE.parent)]!r}\n"
    command = [sys.executable, *INTERPRETER_FLAGS, "-c", path + BEGIN.format(bundle=str(content)) + code]
    return subprocess.run(command, env={}, capture_output=True, text=True, check=True).stdout.split()


def test_models_load_in_a_process_that_can_open_no_file(content: Path) -> None:
    loaded = printed(content, LOAD)
    assert {"kvmbox.devices.uart.model", "kvmbox.devices.virtio.net"} <= set(loaded)
    assert [name for name in loaded if not name.startswith(("kvmbox.contract.", "kvmbox.devices"))] == []


def test_process_of_a_type_loads_the_models_that_it_will_want(content: Path) -> None:
    one = 'assert kept.keep("contract", "devices"); catalog.load_usual("uart"); catalog.load_usual("another")'
    loaded = printed(content, f"{one}; print(*sys.modules)")
    assert "kvmbox.devices.uart.model" in loaded
    assert "kvmbox.devices.debug.model" not in loaded


def test_spawner_loads_no_model(content: Path) -> None:
    loaded = printed(content, "print(*sys.modules)")
    assert {name for name in loaded if name.startswith(("kvmbox.contract.", "kvmbox.devices"))} == {
        *("kvmbox.contract.catalog", "kvmbox.contract.bulk_data", "kvmbox.contract.model"),
        "kvmbox.contract.pci_effects",
    }


@pytest.mark.parametrize(
    "before",
    [
        "bytecode.leave()",
        "os.remove(bytecode.BUNDLE)",
        "kept.is_source_of = lambda entry: 'hpet' not in entry[0]",
    ],
    ids=["no bundle", "removed", "another source"],
)
def test_nothing_is_kept_of_a_bundle_that_does_not_fit(tmp_path: Path, content: Path, before: str) -> None:
    own = tmp_path / "bundle"
    own.write_bytes(content.read_bytes())
    assert printed(own, f"{before}; print(kept.keep('contract', 'devices'))") == ["False"]
