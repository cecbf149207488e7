"""A thread of the VMM in place of a device process: `--sandbox thread`.

The serving loop, the protocol and the channel are those of a process. Only the address space is shared. A
comparison with `process` shows how much of the cost of a sandbox is IPC. A thread protects from nothing.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from kvmbox.base.compiled import compiled, is_compiled
from kvmbox.host.process.threads import start_thread
from kvmbox.jail.device_process import main
from kvmbox.remote.transport.interface import Link
from kvmbox.sandbox.listener import ForbiddenCall

ENDED: Final = 0
"""What stands for a wait status: a thread has none."""


def _main() -> Callable[..., int]:
    if not is_compiled():
        return main
    return partial(compiled("serving", "main"), alone=False)


class DeviceThread:
    """Serves the device's end of a link. Looks like a `DeviceProcess` to the pool."""

    listener = None
    layers = 0

    def __init__(self, device_type: str, link: Link, *, cpu: int | None = None) -> None:
        """Start at once, on `cpu`; the device's descriptors are the thread's from now on."""
        self.type = device_type
        self.wait_status: int | None = None
        self._link = link
        self._main = _main()
        self._cpu = cpu
        self._lock = threading.Lock()
        self._open = True
        self._thread = threading.Thread(target=self._serve, name=f"device {device_type}", daemon=True)
        start_thread(self._thread.start, f"the thread of device '{device_type}'")
        self.pid = self._thread.native_id or 0
        """Its number: the kernel's tables have threads among processes."""

    def _serve(self) -> None:
        channel, *replies = self._link.device[:2]
        if self._cpu is not None:
            # Beside the vCPU, as a process is: elsewhere an exit takes three times as long.
            with suppress(OSError):
                os.sched_setaffinity(0, {self._cpu})
        try:
            self._main(channel, replies[0] if replies else None, self._link.page)
        except OSError:
            pass  # the VMM has closed its end while a reply was on its way
        finally:
            self._close()
            self.wait_status = ENDED

    def _close(self) -> None:
        with self._lock:
            if self._open:
                self._open = False
                for descriptor in self._link.device:
                    os.close(descriptor)

    def kill(self) -> None:
        """Disconnect the thread, because a thread cannot be killed. Its later replies are lost."""
        with self._lock:
            if not self._open:
                return
            if len(self._link.device) == 1:
                with socket.socket(fileno=os.dup(self._link.device[0])) as end:
                    end.shutdown(socket.SHUT_RDWR)
                return
            # Not closed: the thread may still use the numbers, which could then belong to other files.
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            for descriptor in self._link.device[:2]:
                os.dup2(null, descriptor, inheritable=False)
            os.close(null)

    def take_forbidden_call(self) -> ForbiddenCall | None:
        """None: a thread may make every system call of the VMM."""
        return None

    def join(self, seconds: float) -> None:
        """Wait for the loop's end, the VMM's end being closed."""
        self._thread.join(seconds)
