"""How kvmbox starts itself as a child: the same interpreter, and the child ends when its parent does."""

from __future__ import annotations

import os
import sys


def child_command() -> tuple[str, ...]:
    """The command line of `kvmbox` as a child of this process; arguments follow.

    The child gets SIGTERM when the *thread* that starts it ends, even if that is killed. So this thread must
    outlive the child. The child refuses to start if this process has ended before.
    """
    program = f"from kvmbox.cli.entry import entry_point; entry_point(parent={os.getpid()})"
    return (sys.executable, "-P", "-c", program)
