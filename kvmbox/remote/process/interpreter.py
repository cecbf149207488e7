"""Start a helper process that is a new interpreter: the spawner, and the template of warm boots.

A run imports this before its spawner starts: so nothing that needs `collections`, 2 ms with what it needs.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kvmbox.base import bytecode
from kvmbox.base.errors import KvmboxError
from kvmbox.base.light_typing import signal
from kvmbox.jail import descriptor_passing
from kvmbox.jail.fixed_descriptors import CONTROL_FD

PACKAGE_DIRECTORY: Final = os.path.dirname(bytecode.PACKAGE)
"""Where the interpreter finds kvmbox."""


def start(
    name: str, code: str, flags: Sequence[str], environment: Mapping[str, str], failure: type[KvmboxError]
) -> tuple[int, int, int]:
    """Start an interpreter that runs `code`: its pid, its pidfd, and our end of the socket at its CONTROL_FD.

    It finds kvmbox, has /dev/null at 0 to 2, and inherits nothing else. Raises OSError if there is no socket,
    and `failure` if `name` cannot be started.
    """
    # Appended: the standard library comes first, whatever lies beside kvmbox.
    path = f"sys.path += {[PACKAGE_DIRECTORY]!r}"
    code = f"import gc, sys; gc.disable(); {path}; from kvmbox.base import bytecode; bytecode.use(); {code}"
    own_end, its_end = descriptor_passing.socket_pair()
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *["-B"] * sys.dont_write_bytecode, *flags, "-c", code],
            environment,
            file_actions=_file_actions(its_end),
            setsid=True,  # out of the terminal's reach from its first instruction
            setsigmask=(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )
    except OSError as error:
        os.close(own_end)
        # posix_spawn does not tell which of its steps failed.
        what = sys.executable if os.path.exists(os.devnull) else os.devnull
        raise failure(f"cannot start {name} ({what}): {error.strerror}") from error
    finally:
        os.close(its_end)
    try:
        return pid, os.pidfd_open(pid), own_end
    except OSError as error:
        os.close(own_end)  # it reads the end of its socket, and leaves
        os.waitpid(pid, 0)
        raise failure(f"cannot watch {name}: {error.strerror}") from error


def _file_actions(control: int) -> list[Any]:
    """What posix_spawn does to descriptors: the control socket, /dev/null, and nothing else inherited."""
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_DUP2, control, CONTROL_FD)]
    modes = (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)
    actions += [(os.POSIX_SPAWN_OPEN, number, os.devnull, mode, 0) for number, mode in enumerate(modes)]
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    inherited = "/proc/self/fd"  # where there is no /proc, descriptors live until the process's close_range
    for number in map(int, os.listdir(inherited) if os.path.isdir(inherited) else ()):
        try:
            # Beyond the limit posix_spawn refuses to close: the process's close_range gets those.
            if CONTROL_FD < number < limit and os.get_inheritable(number):
                actions.append((os.POSIX_SPAWN_CLOSE, number))
        except OSError:
            pass  # the listing's own descriptor is gone by now
    return actions
