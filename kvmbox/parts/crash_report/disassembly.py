"""The disassembler's former place, for `aftermath`."""

from __future__ import annotations

from kvmbox.explain.disassembly import preload

__all__ = ["preload"]
