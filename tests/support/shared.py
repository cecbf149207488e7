"""What is made once in a run of the tests, for the tests of all files and for all workers of pytest-xdist."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

SOURCES: Final = Path(__file__).parents[2] / "guests"


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of this run, which `make` has filled: whoever comes first makes it, others wait.

    What fails leaves nothing behind, and the next one tries again. It is for all tests: they only read it.
    """
    base = factory.getbasetemp()
    top = base.parent if base.name.startswith("popen-") else base  # a worker has a folder in that of the run
    folder, done = top / f"shared-{name}", top / f"shared-{name}.done"
    with (top / f"shared-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def built_guests(factory: pytest.TempPathFactory) -> Path:
    """The folder with the guests in `images`, built from nothing in `build`, and in `said` what make said."""
    for tool in ("make", "cc", "ld", "ar", "objcopy"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} not found: the guests cannot be built")
    return made_once(factory, "guests", _build)


def _build(folder: Path) -> None:
    (folder / "said").write_text(made_by(f"OUT={folder}/images", f"BUILD={folder}/build"))


def made_by(*variables: str) -> str:
    """Run guests/Makefile; returns all it said."""
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(SOURCES), *variables],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def bundle_of_kvmbox(factory: pytest.TempPathFactory) -> Path:
    """A bundle of bytecode with all of kvmbox, as its sources are now."""
    return made_once(factory, "bundle", _bundle) / "bundle"


def _bundle(folder: Path) -> None:
    import kvmbox
    from tools.bundle_bytecode import bundle

    (folder / "bundle").write_bytes(bundle(Path(kvmbox.__file__).parent))
