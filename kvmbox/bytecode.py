"""Modules of kvmbox from one file of bytecode, which takes less time than many files.

A run imports more than 200 modules of kvmbox. For each, Python looks through folders, compares the bytecode
with its source, and opens and reads a file. `tools/bundle_bytecode.py` puts the bytecode of all modules into
one file, which `make` keeps beside this one. `use` puts a finder for it before Python's own.

The rule of Python's own bytecode holds: if a source has not the time and size of the one that was compiled,
its module is not taken from the bundle. Nor is any module if there is no bundle, or if the package has moved.
Python's own finders then load what is missing: slower, and never wrong.

What is always loaded together is a group: names in the order in which their imports would end, and all
their code as one value, which has each text once. `load` reads that, and each import then finds its module
loaded. A group with the name of a module is loaded before that module.
"""

from __future__ import annotations

import gc
import marshal
import mmap
import os
import sys
from _frozen_importlib import ModuleSpec, module_from_spec
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType
    from typing import Final, TypeAlias

    Entry: TypeAlias = tuple[str, bool, int, int, int, int]
    """Of a module: its file within the package, whether it is a package, the time (s) and size of its source,
    and the place and length of its code.
    """

PACKAGE: Final = os.path.dirname(os.path.abspath(__file__))
BUNDLE: Final = f"{PACKAGE}/bytecode.{sys.implementation.cache_tag}.bin"
LENGTH_SIZE: Final = 4
"""The file begins with the length of its index, little-endian; then come the index and the code."""


class Bundle:
    """Finds modules in a bundle."""

    def __init__(
        self,
        identity: tuple[int, int],
        start: int,
        entries: Mapping[str, Entry],
        groups: Mapping[str, tuple[tuple[str, ...], int]],
    ) -> None:
        """`identity` is the inode and time of the file, `start` where code begins in it. Of each group there
        are the names of its modules, and the place of their code.
        """
        self._identity = identity
        self.start = start
        self.entries = entries
        self._groups = groups

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The module, unless its source is another one by now."""
        entry = self.entries.get(fullname)
        if entry is None or not is_source_of(entry):
            return None
        file, is_package, *_ = entry
        origin = f"{PACKAGE}/{file}"
        loader = Loader(fullname, origin, self, entry[-2:])
        spec = ModuleSpec(fullname, loader, origin=origin, is_package=is_package)
        if is_package:
            spec.submodule_search_locations = [os.path.dirname(origin)]
        spec.cached, spec.has_location = BUNDLE, True
        return spec

    def load(self, group: str) -> None:
        """Load the modules of a group, if no source of them is another one by now."""
        names, place = self._groups.get(group, ((), 0))
        specs = [self.find_spec(name) for name in names if name not in sys.modules]
        file = self.opened() if specs and None not in specs else None
        if file is None:
            return  # each is loaded when it is imported
        with mmap.mmap(file, 0, prot=mmap.PROT_READ) as content, memoryview(content) as view:
            codes = marshal.loads(view[self.start + place :])  # noqa: S302 - as a .pyc
        os.close(file)
        fresh = {spec.name: module_from_spec(spec) for spec in specs if spec is not None}
        for name, code in zip(names, codes, strict=True):
            package, _, short = name.rpartition(".")
            # A package that imports its modules comes behind them, and is there before.
            if package in fresh:
                sys.modules.setdefault(package, fresh[package])
            if name in fresh and sys.modules.setdefault(name, fresh[name]) is fresh[name]:
                exec(code, fresh[name].__dict__)  # noqa: S102 - as an import
                setattr(sys.modules[package], short, fresh[name])

    def opened(self) -> int | None:
        """A descriptor of the file; None if it cannot be read, or is another one by now."""
        try:
            file = os.open(BUNDLE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        if _identity(file) == self._identity:
            return file
        os.close(file)
        return None

    def code(self, start: int, length: int) -> bytes | None:
        """What is there in the file; None as `opened`."""
        file = self.opened()  # each time: a descriptor would have to be kept out of the jail
        if file is None:
            return None
        try:
            os.lseek(file, self.start + start, os.SEEK_SET)  # pread is not for a confined VMM
            return os.read(file, length)
        finally:
            os.close(file)


class Loader(SourceFileLoader):
    """Loads one module from a bundle."""

    def __init__(self, name: str, path: str, bundle: Bundle, place: tuple[int, int]) -> None:
        super().__init__(name, path)
        self._bundle = bundle
        self._place = place

    def get_code(self, fullname: str) -> CodeType | None:
        """From the bundle, or else as Python does; after what it imports, if that is a group."""
        self._bundle.load(fullname)
        code = self._bundle.code(*self._place)
        return marshal.loads(code) if code else super().get_code(fullname)  # noqa: S302 - as a .pyc


def is_source_of(entry: Entry) -> bool:
    """Whether a module's source is the one that was compiled."""
    file, _, time, size, _, _ = entry
    try:
        status = os.stat(f"{PACKAGE}/{file}")
    except OSError:
        return False
    return (int(status.st_mtime), status.st_size) == (time, size)


def _identity(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    return status.st_ino, status.st_mtime_ns


def use() -> None:
    """Load modules from the bundle from now on, if there is one that fits."""
    try:
        with open(BUNDLE, "rb") as file:
            length = int.from_bytes(file.read(LENGTH_SIZE), "little")
            magic, package, entries, groups = marshal.loads(file.read(length))  # noqa: S302 - as a .pyc
            identity = _identity(file.fileno())
    except (OSError, EOFError, ValueError):
        return
    if (magic, package) == (MAGIC_NUMBER, PACKAGE):
        sys.meta_path.insert(0, Bundle(identity, LENGTH_SIZE + length, entries, groups))


def load(group: str) -> None:
    """Load a group now, if there is a bundle that fits."""
    for finder in sys.meta_path:
        if isinstance(finder, Bundle):
            finder.load(group)


def leave() -> None:
    """Load modules as Python does from now on."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Bundle)]


def loaded() -> None:
    """All that a run needs is loaded. From now on garbage is collected: what was made until now is none.

    What is imported later comes from the bundle as well: without it, even an idle run would need `typing`.
    """
    gc.freeze()
    gc.enable()
