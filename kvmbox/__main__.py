"""`python -m kvmbox`: the `kvmbox` command without its launcher.

Until this line the interpreter answers signals, limits and odd descriptors by itself, with status 1
(docs/adr/launcher.md). Programs that trust the exit status start `kvmbox`.
"""

from __future__ import annotations

from kvmbox.cli.entry import entry_point

if __name__ == "__main__":
    entry_point()
