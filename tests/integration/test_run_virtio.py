"""Virtio devices in a run: what comes out of a disk, a process that is lost, recordings, and options."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmbox import Machine
from kvmbox.errors import UsageError
from kvmbox.tools.replay.reader import RecordingReader
