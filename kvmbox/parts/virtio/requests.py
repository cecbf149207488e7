"""The value of --virtio-console: text of a person, or a Capture of a program."""

from __future__ import annotations

from typing import Any

from kvmbox.board import VIRTIO_CONSOLE
from kvmbox.errors import UsageError
from kvmbox.host.capture import Capture
from kvmbox.host.serial import SerialSpec

_ACCEPTED = "stdout, null, pty or file:PATH"


def console(value: Any) -> SerialSpec:
    """Where the virtio console is. Raises UsageError."""
    if isinstance(value, Capture):
        return SerialSpec(VIRTIO_CONSOLE, "capture", capture=value)
    kind, colon, path = str(value).partition(":")
    if kind == "file" and path:
        return SerialSpec(VIRTIO_CONSOLE, kind, path)
    if kind in ("stdout", "null", "pty") and not colon:
        return SerialSpec(VIRTIO_CONSOLE, kind)
    raise UsageError(f"--virtio-console '{value}': unknown backend", hint=f"accepted: {_ACCEPTED}")
