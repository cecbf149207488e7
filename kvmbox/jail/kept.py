"""Modules whose code is in memory: device processes, which can open no file, load what they need of it.

The spawner loads no model. It reads the code of all models from the bundle of bytecode (`kvmbox.bytecode`),
and a device process loads its own. So the spawner starts earlier, and a device process has fewer pages of its
own. Without a bundle that fits, the spawner loads them all.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec

from kvmbox.bytecode import Bundle, is_source_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


class Kept:
    """Finds and loads modules whose code is in memory."""

    def __init__(self, codes: bytes, places: dict[str, tuple[int, int]]) -> None:
        """`places` are the start and the end of the code of each module in `codes`."""
        self._codes = codes
        self._places = places

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The module, if it is kept."""
        return ModuleSpec(fullname, self) if fullname in self._places else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """As Python makes it."""

    def exec_module(self, module: ModuleType) -> None:
        """Run its code."""
        start, end = self._places[module.__name__]
        exec(marshal.loads(self._codes[start:end]), module.__dict__)  # noqa: S102, S302 - as a .pyc


def keep(prefix: str) -> bool:
    """From now on find in memory what the bundle has of modules that are not loaded and whose names begin
    with `prefix`, that of a package without packages. No file is read for them. False if no bundle fits, or
    a module is in none.
    """
    bundle = next((finder for finder in sys.meta_path if isinstance(finder, Bundle)), None)
    entries = {} if bundle is None else bundle.entries
    wanted = {name: entry for name, entry in entries.items() if name.startswith(prefix)}
    (directory,) = sys.modules[prefix.rstrip(".")].__path__
    modules = {prefix + file[:-3] for file in os.listdir(directory) if file.endswith(".py")}
    if bundle is None or not all(map(is_source_of, wanted.values())):
        return False
    if modules - wanted.keys() - {f"{prefix}__init__"}:
        return False
    # One read: the modules of a package are side by side in the bundle.
    first = min(start for *_, start, _ in wanted.values())
    codes = bundle.code(first, max(start + length for *_, start, length in wanted.values()) - first)
    if codes is None:
        return False
    places = {
        name: (start - first, start - first + length)
        for name, (*_, start, length) in wanted.items()
        if name not in sys.modules
    }
    sys.meta_path.insert(0, Kept(codes, places))
    return True
