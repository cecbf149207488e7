"""Kernels that others wrote and that are built from their sources: which, how, and where the result is.

A tree is cloned at one commit into `.lab/foreign/trees` and built there by its own Makefile, once, unless it
has images. Arguments of make silence what compilers have learnt to warn of since. Nothing of a tree is part
of this repository.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.foreign.images import CACHE, command_output
from tests.lab.packages import Unavailable

TREES: Final = CACHE / "trees"
_TOOLS: Final = ("git", "make", "gcc", "perl", "nasm")


@dataclass(frozen=True, slots=True)
class Tree:
    """One repository at one commit."""

    repository: str
    """OWNER/NAME at GitHub."""
    commit: str
    make: tuple[str, ...] = ()
    """Arguments of make; none for a tree that has images."""

    @property
    def name(self) -> str:
        """The name of its directory, and what the tables call its package."""
        return self.repository.replace("/", "-")


XV6: Final = Tree(
    "mit-pdos/xv6-public",
    "eeb7b415dbcb12cc362d0783e41c3d1f44066b17",
    ("CC=gcc -w", "xv6.img", "fs.img"),
)
XV6_64: Final = Tree("tiqwab/xv6-x86_64", "5a5ec6c3f0d44a14674248ba1cdf201f3da93ee1", ("CC=gcc -w",))
JOS: Final = Tree(
    "ashitakasan/mit6.828-JOS",
    "3a2815baa03bb785a9f88a83f973d89a8f7e3fa0",
    ("CC=gcc -w -pipe -fcommon -fno-pic -no-pie", "GCCPREFIX=", "QEMU=true"),
)
NANOCORE: Final = Tree("SToPire/NanoCore", "4c2e49d236d42a104d6dabcfb45565cc666d96e2", ("docker-build",))
"""Its name for a build without a container."""
FREEDOS: Final = Tree("codercowboy/freedosbootdisks", "330e522bf9323ad54a6ff68c9b7cb9ae7a084cb4")
"""Diskettes with the kernel and the shell of FreeDOS."""
MIKEOS: Final = Tree("mig-hub/mikeOS", "685306a87ddf1a41c069ec7670d24c7d2023ff20")


def built(tree: Tree, file: str) -> Path:
    """A file of a built tree. Unavailable if it cannot be fetched or built."""
    target = TREES / tree.name
    if not target.exists():
        for tool in _TOOLS if tree.make else _TOOLS[:1]:
            if shutil.which(tool) is None:
                raise Unavailable(f"{tool} not found: {tree.repository} cannot be fetched and built")
        TREES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=TREES, prefix="build-") as scratch:
            clone = Path(scratch, "clone")
            source = f"https://github.com/{tree.repository}"
            command_output(["git", "clone", "--quiet", source, str(clone)])
            command_output(["git", "-C", str(clone), "checkout", "--quiet", tree.commit])
            if tree.make:
                command_output(["make", "-C", str(clone), *tree.make])
            clone.rename(target)
    found = target / file
    if not found.exists():
        raise Unavailable(f"{tree.repository} was built without {file}")
    return found
