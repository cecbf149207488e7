"""Modules whose code is in memory: device processes, which can open no file, load what they need of it.

The spawner loads no model. It maps the code of all models in the bundle of bytecode (`kvmbox.base.bytecode`),
and a device process loads its own. So the spawner starts earlier, and a device process has fewer pages of its
own. Without a bundle that fits, the spawner loads them all.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import sys
from _frozen_importlib import ModuleSpec

from kvmbox.base.bytecode import PACKAGE, Bundle, is_source_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Final


# <asm-generic/mman-common.h>
PROT_READ: Final = 1
MAP_PRIVATE: Final = 2
MAP_FAILED: Final = 0xFFFF_FFFF_FFFF_FFFF


class Kept:
    """Finds and loads modules whose code is in memory."""

    def __init__(self, codes: memoryview, places: dict[str, slice], packages: set[str]) -> None:
        """`places` are those of the code of each module in `codes`, some of which are `packages`."""
        self._codes = codes
        self._places = places
        self._packages = packages

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The module, if it is kept."""
        if fullname not in self._places:
            return None
        return ModuleSpec(fullname, self, is_package=fullname in self._packages)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """As Python makes it."""

    def exec_module(self, module: ModuleType) -> None:
        """Run its code."""
        exec(marshal.loads(self._codes[self._places[module.__name__]]), module.__dict__)  # noqa: S102, S302


def keep(*folders: str) -> bool:
    """From now on find in memory what the bundle has of the modules in `folders` of kvmbox that are not
    loaded. No file is read for them. False if no bundle fits, or a module is in none.
    """
    bundle = next((finder for finder in sys.meta_path if isinstance(finder, Bundle)), None)
    if bundle is None:
        return False
    wanted = {name: entry for folder in folders for name, entry in bundle.entries(folder).items()}
    if not all(map(is_source_of, wanted.values())):
        return False
    if {file for folder in folders for file in _sources(folder)} - {entry[0] for entry in wanted.values()}:
        return False
    if (file := bundle.opened()) is None:
        return False
    places = {
        name: slice(start, start + length)
        for name, (*_, start, length) in wanted.items()
        if name not in sys.modules
    }
    # The pages of the file, which all processes share, and not a copy.
    codes = _mapped(file, max(place.stop for place in places.values()))
    os.close(file)
    packages = {name for name, (_, is_package, *_) in wanted.items() if is_package}
    sys.meta_path.insert(0, Kept(codes, places, packages))
    return True


def _sources(folder: str) -> Iterator[str]:
    """The Python files in a folder of kvmbox and in the folders within it."""
    for one in os.scandir(f"{PACKAGE}/{folder}"):
        if one.name.endswith(".py"):
            yield f"{folder}/{one.name}"
        elif one.is_dir() and not one.name.startswith("_"):
            yield from _sources(f"{folder}/{one.name}")


def _mapped(descriptor: int, length: int) -> memoryview:
    """The first `length` bytes of a file, for good. Module `mmap` would keep a descriptor. Raises OSError."""
    mmap = ctypes.CDLL(None, use_errno=True).mmap
    mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *3 * (ctypes.c_int,), ctypes.c_long)
    mmap.restype = ctypes.c_size_t
    address = mmap(None, length, PROT_READ, MAP_PRIVATE, descriptor, 0)
    if address == MAP_FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    # SAFETY: `length` bytes are mapped there, to be read, and nothing unmaps them.
    return memoryview((ctypes.c_char * length).from_address(address)).cast("B").toreadonly()
