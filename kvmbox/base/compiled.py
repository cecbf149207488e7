"""Whether the compiled hot path is used."""

from __future__ import annotations

import os
from _imp import extension_suffixes  # `importlib.machinery` has them, and takes 0.4 ms to import
from typing import Any, Final, TypeVar

from kvmbox.base.errors import StartError

VARIABLE: Final = "KVMBOX_PURE"
EXTENSION_SUFFIXES: Final = extension_suffixes()
Kind = TypeVar("Kind", bound=type[Any])

_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_found: dict[tuple[str, ...], str | None] = {}  # `functools` can wait until the spawner starts


def why_pure() -> str | None:
    """Why the hot path is not compiled, or None if it is."""
    return f"{VARIABLE} is set" if os.environ.get(VARIABLE, "0") not in ("", "0") else why_not_built()


def why_not_built() -> str | None:
    """Why it cannot be used, whatever the environment says, or None if it can."""
    suffixes = tuple(EXTENSION_SUFFIXES)
    if suffixes not in _found:
        _found[suffixes] = _why_none_of(suffixes)
    return _found[suffixes]


def _why_none_of(suffixes: tuple[str, ...]) -> str | None:
    for module in ("fast/vmm", "fast/serving"):
        # Not imported: the spawner is started before the modules that they need are loaded.
        if not any(os.path.exists(f"{_PACKAGE}/{module}{suffix}") for suffix in suffixes):
            return "it was not built for this Python"
    return None


def describe() -> str:
    """The choice, for people: "compiled", or "pure Python" and why."""
    return "compiled" if (reason := why_pure()) is None else f"pure Python ({reason})"


def is_compiled() -> bool:
    """Whether the hot path is compiled."""
    return why_pure() is None


def compiled(module: str, name: str) -> Any:
    """A name of `kvmbox.fast.compiled_MODULE`, which is loaded by this text alone: the folder may be missing.

    StartError if what was built is of another version of the sources.
    """
    try:
        return getattr(__import__(f"kvmbox.fast.compiled_{module}", fromlist=[name]), name)
    except ImportError as error:
        hint = f"build it again with 'make run', or set {VARIABLE}=1"
        raise StartError(f"the compiled hot path does not fit these sources: {error}", hint=hint) from error


def kind(pure: Kind, module: str, name: str) -> Kind:
    """The class `pure`, or its compiled subclass."""
    found: Kind = compiled(module, name) if is_compiled() else pure
    return found
