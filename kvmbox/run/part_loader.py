"""Parts are loaded by name alone: the core imports none of them (`part`)."""

from __future__ import annotations

from typing import Any, Final

from kvmbox.base.errors import StartError

PARTS: Final = "kvmbox.parts."


def load(module: str, attribute: str) -> Any:
    """A name of a module of a part. StartError if this kvmbox does not have that part."""
    return load_any(f"{PARTS}{module}", attribute)


def load_any(module: str, attribute: str) -> Any:
    """The same for the full name of any module."""
    try:
        return getattr(__import__(module, fromlist=[attribute]), attribute)
    except ModuleNotFoundError as error:
        if not module.startswith(PARTS) or not str(error.name).startswith(PARTS):
            raise
        name = module.removeprefix(PARTS).partition(".")[0]
        raise StartError(
            f"this kvmbox has no part '{name}': {error}",
            hint=f"the folder kvmbox/parts/{name} is missing or incomplete: install kvmbox anew",
        ) from error
