"""Which tests `make quick` runs: those of one module that start nothing, and those of what has changed."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import PurePosixPath
from typing import Final

import pytest

ALWAYS: Final = ("tests/unit/", "tests/regression/")
SLOW: Final = ("hypothesis", "kvm", "thorough")
"""Markers of tests that run only if they have changed, or what they are about."""

LONG: Final = frozenset(
    {"jail/test_kept.py", "base/test_bytecode.py", "test_site.py", "wire/test_page_orders.py"}
)
"""The same of files of `tests/unit`: each takes seconds."""


@cache
def changed_files(root: str) -> list[str]:
    """What git says is not as in HEAD, new files too; nothing where there is no git."""
    command = ["git", "-C", root, "status", "--porcelain", "--untracked-files=all", "--no-renames"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [line[3:] for line in done.stdout.splitlines()]


def is_about(file: str, changed: Iterable[str]) -> bool:
    """Whether a file of tests has changed, or has its name from a module of kvmbox that has."""
    for path in map(PurePosixPath, changed):
        is_source = path.parts[:1] == ("kvmbox",) and path.suffix in (".py", ".pyx")
        names = (f"test_{path.stem}", f"test_{path.parent.name}_{path.stem}")  # a chip's model.py
        if file == str(path) or (is_source and PurePosixPath(file).stem in names):
            return True
    return False


def is_quick(file: str, markers: Collection[str], changed: Collection[str]) -> bool:
    """Whether `make quick` runs a test of this file with these markers."""
    if is_about(file, changed):
        return "thorough" not in markers
    is_always = file.startswith(ALWAYS) and file.removeprefix("tests/unit/") not in LONG
    return is_always and not any(marker in markers for marker in SLOW)


def may_have_quick(file: str, changed: Collection[str]) -> bool:
    """Whether a file is worth being read."""
    return is_quick(file, (), changed)


def keep_quick(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the others out."""
    changed = changed_files(str(config.rootpath))
    chosen: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        markers = {marker.name for marker in item.iter_markers()}
        file = item.nodeid.partition("::")[0]
        (chosen if is_quick(file, markers, changed) else others).append(item)
    items[:] = chosen
    config.hook.pytest_deselected(items=others)
