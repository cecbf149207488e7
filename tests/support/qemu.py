"""QEMU, for tests that compare what a guest sees in it."""

from __future__ import annotations

from typing import Final

EMULATED: Final = ("-accel", "tcg", "-icount", "shift=5,sleep=off")
"""How it executes a guest. The machine's time is that of its instructions, and passes at once where it waits:
no host, however busy, decides what the firmware gets done in time.
"""
