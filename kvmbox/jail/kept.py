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

    def __init__(self, codes: dict[str, bytes]) -> None:
        self._codes = codes

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The module, if it is kept."""
        return ModuleSpec(fullname, self) if fullname in self._codes else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """As Python makes it."""

    def exec_module(self, module: ModuleType) -> None:
        """Run its code."""
        exec(marshal.loads(self._codes[module.__name__]), module.__dict__)  # noqa: S102, S302 - as a .pyc


def keep(prefix: str) -> bool:
    """From now on find in memory what the bundle has of modules that are not loaded and whose names begin
    with `prefix`, that of a package without packages. No file is read for them. False if no bundle fits, or
    a module is in none.
    """
    bundles = [finder for finder in sys.meta_path if isinstance(finder, Bundle)]
    codes: dict[str, bytes] = {}
    for bundle in bundles:
        for name, entry in bundle.entries.items():
            if name.startswith(prefix) and name not in sys.modules:
                code = bundle.code(*entry[-2:]) if is_source_of(entry) else None
                if code is None:
                    return False
                codes[name] = code
    (directory,) = sys.modules[prefix.rstrip(".")].__path__
    modules = {prefix + file[:-3] for file in os.listdir(directory) if file.endswith(".py")}
    if modules - codes.keys() - sys.modules.keys() - {f"{prefix}__init__"}:
        return False
    sys.meta_path.insert(0, Kept(codes))
    return bool(bundles)
