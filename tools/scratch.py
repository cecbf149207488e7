"""A copy of the files that git knows, to break and to run: what is done there reaches nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
FOLDERS: Final = ("kvmbox", "tests", "tools", "pyproject.toml")


def _tracked(folders: Sequence[str]) -> list[str]:
    """The files of these folders that git knows, and new ones."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *folders]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, check=True)
    return [name for name in listed.stdout.decode().split("\0") if name and (PROJECT / name).is_file()]


def _all(folders: Sequence[str]) -> list[str]:
    """All files of these folders: this is a copy itself."""
    found = [path for folder in folders for path in ((PROJECT / folder).rglob("*"), [PROJECT / folder])]
    return [str(path.relative_to(PROJECT)) for paths in found for path in paths if path.is_file()]


def replace_once(path: Path, old: str, new: str) -> None:
    """Replace the only place of a file that says `old`. ValueError if there is none, or several."""
    text = path.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise ValueError(f"{path.name} has {text.count(old)} times: {old!r}")
    path.write_text(text.replace(old, new), encoding="utf-8")


class Scratch:
    """The copy, in a temporary directory. A context manager, which removes it."""

    def __init__(self, folders: Sequence[str] = FOLDERS, *, compiled: bool = True) -> None:
        """`compiled`: with what was compiled, which does not have what is changed in Python."""
        self._directory = tempfile.TemporaryDirectory(prefix="kvmbox-scratch-")
        self.root = Path(self._directory.name)
        names = _tracked(folders) if (PROJECT / ".git").exists() else _all(folders)
        built = [str(path.relative_to(PROJECT)) for path in self._built(PROJECT) if compiled]
        images = [str(path.relative_to(PROJECT)) for path in (PROJECT / "kvmbox/guest_images").glob("*")]
        for name in {*names, *built, *images}:
            place = self.root / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, place)

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.cleanup()

    def replace(self, name: str, old: str, new: str) -> None:
        """See `replace_once`."""
        replace_once(self.root / name, old, new)

    @staticmethod
    def _built(root: Path) -> list[Path]:
        return list((root / "kvmbox").glob("*/*.so"))

    def built(self) -> dict[Path, bytes]:
        """What was compiled, to be put back by `put_back`."""
        return {path: path.read_bytes() for path in self._built(self.root)}

    def put_back(self, built: Mapping[Path, bytes]) -> None:
        """Undo a `build`."""
        for path, data in built.items():
            path.write_bytes(data)

    def build(self) -> None:
        """Compile `kvmbox/fast` anew, in a hurry. CalledProcessError if that fails."""
        path = self.root / "tools/build_accelerator.py"
        path.write_text(path.read_text().replace('"-O2"', '"-O0"'))
        subprocess.run([sys.executable, "tools/build_accelerator.py"], cwd=self.root, check=True)

    def run(
        self, command: Sequence[str], seconds: int, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments in the copy. Raises subprocess.TimeoutExpired."""
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(self.root), **(environment or {})},
            timeout=seconds,
            capture_output=True,
            text=True,
            check=False,
        )
