"""A pseudo-terminal behind a port of the guest."""

from __future__ import annotations

import os
import tty

from kvmbox.base.errors import StartError


def open_pty() -> tuple[int, str]:
    """A pseudo-terminal in raw mode: the master's descriptor, non-blocking, and the path to open."""
    try:
        master, slave = os.openpty()
    except OSError as error:
        raise StartError(f"cannot open a pseudo-terminal: {error.strerror}") from error
    tty.setraw(slave)
    path = os.ttyname(slave)
    # Closing our slave makes the master say "hung up" until somebody opens the path.
    os.close(slave)
    os.set_blocking(master, False)
    return master, path
