"""The parts of one run: which it has, by a table of names, and their stages.

The table knows parts by text alone. A part is imported when the configuration asks for it, or when the run
summons it: the screen when the guest has one, the crash report when the guest has come to a bad end.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from kvmbox.run.config import DEFAULT_PROFILE_RATE, RunConfig

Wanted = Callable[[RunConfig], dict[str, Any] | None]
"""What the constructor of a part is given for a configuration; None: the part is not wanted."""


def _gdb(config: RunConfig) -> dict[str, Any] | None:
    return None if config.gdb is None else {"endpoint": config.gdb}


def _crash_report(config: RunConfig) -> dict[str, Any] | None:
    disassembles = bool(config.symbols) or os.isatty(2)
    wanted = disassembles or bool(config.source)
    return {"source": config.source, "disassembles": disassembles} if wanted else None


def _core_file(config: RunConfig) -> dict[str, Any] | None:
    return None if config.core is None else {"path": config.core, "always": config.core_always}


def _record(config: RunConfig) -> dict[str, Any] | None:
    return None if config.record is None else {"path": config.record, "limit": config.record_limit}


def _profile(config: RunConfig) -> dict[str, Any] | None:
    rate = config.profile_rate or DEFAULT_PROFILE_RATE
    return None if config.profile is None else {"path": config.profile, "rate": rate}
