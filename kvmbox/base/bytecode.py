"""Modules of kvmbox from one file of bytecode, which takes less time than many files.

A run imports more than 200 modules of kvmbox. For each, Python looks through folders, compares the bytecode
with its source, and opens and reads a file. `tools/bundle_bytecode.py` puts the bytecode of all modules into
one file, which `make` keeps in the folder of the package. `use` puts a finder for it before Python's own.

The rule of Python's own bytecode holds: if a source has not the time and size of the one that was compiled,
its module is not taken from the bundle. Nor is any module if there is no bundle, or if the package has moved.
Python's own finders then load what is missing: slower, and never wrong.

What is always loaded together is a group: modules in the order in which their imports would end, and all
their code as one value, which has each text once. `load` reads that, and each import then finds its module
loaded. A group with the name of a module is loaded before that module. What a module of a group imports from
modules before it is put into it, without the statement, which takes 3 µs.
"""

from __future__ import annotations

import gc
import marshal
import mmap
import os
import sys
from _frozen_importlib import ModuleSpec, _gcd_import  # type: ignore[attr-defined]
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CodeType, ModuleType
    from typing import Final, TypeAlias

    Entry: TypeAlias = tuple[str, bool, int, int, int, int]
    """Of a module: its file within the package, whether it is a package, the time (s) and size of its source,
    and the place and length of its code.
    """
    Link: TypeAlias = tuple[str, str, str]
    """What a module takes from another one: the name here, the other's name, and the name there; none for the
    other one itself.
    """
    Places: TypeAlias = dict[str, tuple[int, int]]
    """By name: a place in the file, and the length of what is there."""

PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUNDLE: Final = f"{PACKAGE}/bytecode.{sys.implementation.cache_tag}.bin"
HEAD_SIZE: Final = 8192
"""Of the file's head, which gives the places of the entries of each folder of kvmbox, by name, and of the
entries, links and code of each group's modules.
"""


class Bundle:
    """Finds modules in a bundle."""

    def __init__(self, identity: tuple[int, int], folders: Places, groups: Places) -> None:
        """`identity` is the inode and time of the file."""
        self._identity = identity
        self._folders = folders
        self._groups = groups
        self._entries: dict[str, Mapping[str, Entry]] = {}

    def entries(self, folder: str) -> Mapping[str, Entry]:
        """The modules of a folder of kvmbox and of the folders within it, by name."""
        if folder in self._folders and folder not in self._entries:
            content = self.code(*self._folders[folder])
            self._entries[folder] = marshal.loads(content) if content else {}  # noqa: S302 - as a .pyc
        return self._entries.get(folder, {})

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The module, unless its source is another one by now."""
        _, folder, *_ = f"{fullname}..".split(".", 2)
        entry = self.entries(folder).get(fullname)
        return None if entry is None or not is_source_of(entry) else self._spec(fullname, entry)

    def _spec(self, name: str, entry: Entry) -> ModuleSpec:
        file, is_package, *_ = entry
        origin = f"{PACKAGE}/{file}"
        loader = Loader(name, origin)
        loader.bundle, loader.place = self, entry[-2:]
        spec = ModuleSpec(name, loader, origin=origin, is_package=is_package)
        if is_package:
            spec.submodule_search_locations = [os.path.dirname(origin)]
        spec.cached, spec.has_location = BUNDLE, True
        return spec

    def load(self, group: str) -> None:
        """Load the modules of a group, if no source of them is another one by now."""
        place, _ = self._groups.pop(group, (0, 0))
        file = self.opened() if place else None
        if file is None:
            return  # each is loaded when it is imported
        modules: dict[str, tuple[Entry, list[Link], CodeType]]
        with mmap.mmap(file, 0, prot=mmap.PROT_READ) as content, memoryview(content) as view:
            modules = marshal.loads(view[place:])  # noqa: S302 - as a .pyc
        os.close(file)
        fresh = {name: entry for name, (entry, _, _) in modules.items() if name not in sys.modules}
        if not all(map(is_source_of, fresh.values())):
            return
        made = {name: _module(self._spec(name, entry)) for name, entry in fresh.items()}
        for name, module in made.items():
            package, _, short = name.rpartition(".")
            # A package that imports its modules comes behind them, and is there before.
            if package in made:
                sys.modules.setdefault(package, made[package])
            if sys.modules.setdefault(name, module) is module:
                _, links, code = modules[name]
                for own, source, there in links:
                    other = sys.modules.get(source) or _gcd_import(source)
                    module.__dict__[own] = getattr(other, there) if there else other
                exec(code, module.__dict__)  # noqa: S102 - as an import
                setattr(sys.modules[package], short, module)

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
            os.lseek(file, start, os.SEEK_SET)  # pread is not for a confined VMM
            return os.read(file, length)
        finally:
            os.close(file)


class Loader(SourceFileLoader):
    """Loads one module from a bundle, where its code has this place."""

    bundle: Bundle
    place: tuple[int, int]

    def get_code(self, fullname: str) -> CodeType | None:
        """From the bundle, or else as Python does; after what it imports, if that is a group."""
        self.bundle.load(fullname)
        code = self.bundle.code(*self.place)
        return marshal.loads(code) if code else super().get_code(fullname)  # noqa: S302 - as a .pyc


def is_source_of(entry: Entry) -> bool:
    """Whether a module's source is the one that was compiled."""
    file, _, time, size, _, _ = entry
    try:
        status = os.stat(f"{PACKAGE}/{file}")
    except OSError:
        return False
    return (int(status.st_mtime), status.st_size) == (time, size)


def _module(spec: ModuleSpec) -> ModuleType:
    """A module as the import system makes it, which takes six times as long."""
    module = type(sys)(spec.name)
    given = {"__spec__": spec, "__loader__": spec.loader, "__package__": spec.parent}
    module.__dict__.update(given, __file__=spec.origin, __cached__=BUNDLE)
    if spec.submodule_search_locations:
        module.__path__ = spec.submodule_search_locations
    return module


def _identity(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    return status.st_ino, status.st_mtime_ns


def use() -> None:
    """Load modules from the bundle from now on, if there is one that fits."""
    try:
        with open(BUNDLE, "rb") as file:
            magic, package, folders, groups = marshal.loads(file.read(HEAD_SIZE))  # noqa: S302 - as a .pyc
            identity = _identity(file.fileno())
    except (OSError, EOFError, ValueError):
        return
    if (magic, package) == (MAGIC_NUMBER, PACKAGE):
        sys.meta_path.insert(0, Bundle(identity, folders, groups))


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
