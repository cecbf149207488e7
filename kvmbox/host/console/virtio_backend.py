"""What --virtio-console accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmbox.base.errors import UsageError
from kvmbox.contract.names import VIRTIO_CONSOLE
from kvmbox.host.console.serial_backends import SerialSpec

if TYPE_CHECKING:
    from kvmbox.host.console.captured_port import Capture


def parse_virtio_console(backend: str | Capture) -> SerialSpec:
    """What --virtio-console may be; UsageError that says what is accepted."""
    if not isinstance(backend, str):
        return SerialSpec(VIRTIO_CONSOLE, "capture", capture=backend)
    kind, colon, path = backend.partition(":")
    if kind == "file" and colon and path:
        return SerialSpec(VIRTIO_CONSOLE, kind, path)
    if kind in ("stdout", "null", "pty") and not colon:
        return SerialSpec(VIRTIO_CONSOLE, kind)
    raise UsageError(
        f"--virtio-console '{backend}': unknown backend", hint="accepted: stdout, null, pty or file:PATH"
    )
