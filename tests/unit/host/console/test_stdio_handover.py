"""stdin and stdout, given away to a client."""

from __future__ import annotations

import os

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.host.console.stdio_handover import take_stdio


def test_terminal_is_no_debugger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda descriptor: True)
    with pytest.raises(UsageError, match="stdin is a terminal"):
        take_stdio()
