"""The files of --fw-cfg: their names, and what is in them."""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.base.errors import UsageError
from kvmbox.boot.boot_files import HostFiles
from kvmbox.firmware.fw_cfg import MOST_BYTES, MOST_NAME, FwCfgItem
from kvmbox.run.options.config import RunConfig


def read_files(config: RunConfig, files: HostFiles, say: Callable[[str], None]) -> tuple[FwCfgItem, ...]:
    """All of them, read once. `say` gets warnings. Raises UsageError for a name, ImageError for a file."""
    found = []
    for file in config.fw_cfg:
        check_name(file.name)
        found.append(FwCfgItem(files.module(file.path, max_size=MOST_BYTES).data, file.name))
        if (warning := warning_about(file.name)) is not None:
            say(warning)
    return tuple(found)


def check_name(name: str) -> None:
    """Raise UsageError unless a user's file may have this name."""
    if not name.isascii() or not name.isprintable() or " " in name:
        raise UsageError(f"--fw-cfg: the name {name!a} is not plain ASCII without spaces")
    if not name or len(name) > MOST_NAME:
        raise UsageError(f"--fw-cfg: the name '{name}' has not 1 to {MOST_NAME} characters")


def warning_about(name: str) -> str | None:
    """What the user should know of this name: QEMU's rule for names (docs/specs/fw_cfg.rst)."""
    if name.startswith("opt/"):
        return None
    return f"--fw-cfg {name}: names that do not begin with 'opt/' are the machine's, not the user's"
