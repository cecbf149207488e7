"""The values of --disk and --cdrom: text of a person, or a path or a request of a program."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.boot.image import printable
from kvmbox.host.disk.stores import DiskRequest
from kvmbox.run.options.disk_value import parse, parse_cd

_EXAMPLES: Final = {"--disk": "--disk disk.img,write", "--cdrom": "--cdrom install.iso"}


def disk(value: Any) -> DiskRequest:
    """A disk. A path is a name, whatever is in it. Raises UsageError."""
    return _request("--disk", value, parse, DiskRequest)


def cd(value: Any) -> DiskRequest:
    """A CD. Raises UsageError."""
    return _request("--cdrom", value, parse_cd, parse_cd)


def _request(
    option: str, value: Any, of_text: Callable[[str], DiskRequest], of_path: Callable[[str], DiskRequest]
) -> DiskRequest:
    if isinstance(value, DiskRequest):
        return value
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{option}: {value!r} is neither text, a path nor a DiskRequest")
    try:
        return of_text(value) if isinstance(value, str) else of_path(os.fspath(value))
    except ValueError as error:
        raise UsageError(printable(f"{option}: {error}"), hint=f"for example {_EXAMPLES[option]}") from error
