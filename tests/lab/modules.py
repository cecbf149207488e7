"""Kernel modules: which files they are, what they depend on, and the order to load them in.

Debian makes modules.dep when a kernel is installed. The lab only unpacks one, so it reads what depmod would
read: the `depends=` entry of each module's .modinfo section.
"""

from __future__ import annotations

import gzip
import lzma
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

# In .modinfo entries end with a zero byte; the names of a `depends=` are separated by commas.
_DEPENDS: Final = re.compile(rb"\0depends=([^\0]*)\0")


class ModuleProblem(Exception):
    """A module that is not there, or cannot be read."""


class Modules:
    """The modules below a lib/modules/VERSION directory."""

    def __init__(self, directory: Path) -> None:
        self._files = {
            _canonical(path.name.partition(".ko")[0]): path
            for path in directory.rglob("*.ko*")
            if path.is_file()
        }
        builtin = directory / "modules.builtin"
        self._builtin = {_canonical(Path(line).stem) for line in builtin.read_text().splitlines()}

    def load_order(self, wanted: Iterable[str]) -> list[tuple[str, bytes]]:
        """Name and content of `wanted` and all that they need, each behind what it depends on."""
        return load_order(wanted, self._builtin, self._content)

    def _content(self, name: str) -> bytes:
        if name not in self._files:
            raise ModuleProblem(f"the kernel package has no module {name}")
        return _decompressed(self._files[name])


def load_order(
    wanted: Iterable[str], builtin: set[str], content: Callable[[str], bytes]
) -> list[tuple[str, bytes]]:
    """The same for any source of modules: `content` gives a module's ELF file, or raises ModuleProblem."""
    order: dict[str, bytes] = {}
    on_the_way: set[str] = set()

    def add(name: str) -> None:
        if name in order or name in builtin:
            return
        if name in on_the_way:
            raise ModuleProblem(f"module {name} depends on itself")
        on_the_way.add(name)
        elf = content(name)
        for dependency in dependencies(elf):
            add(dependency)
        order[name] = elf

    for name in wanted:
        add(_canonical(name))
    return list(order.items())


def dependencies(elf: bytes) -> list[str]:
    """The names that a module's .modinfo gives as `depends`; a module without that entry is refused."""
    found = _DEPENDS.search(elf)
    if found is None:
        raise ModuleProblem("a kernel module without a `depends` entry")
    return [_canonical(name) for name in found[1].decode().split(",") if name]


def _canonical(name: str) -> str:
    """File names have hyphens where the kernel says underscores."""
    return name.replace("-", "_")


def _decompressed(path: Path) -> bytes:
    data = path.read_bytes()
    match path.suffix:
        case ".ko":
            return data
        case ".xz":
            return lzma.decompress(data)
        case ".gz":
            return gzip.decompress(data)
        case ".zst":  # not in the standard library before Python 3.14
            return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
        case _:
            raise ModuleProblem(f"{path.name}: an unknown compression")
