"""QEMU and kvmbox refuse each other's disks where one of them writes, and share what both read."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from kvmbox.base.errors import StartError
from kvmbox.host.disk.image_file import DiskFile

QEMU: Final = shutil.which("qemu-system-x86_64")

needs_qemu = pytest.mark.skipif(QEMU is None, reason="no QEMU: install qemu-system-x86")

pytestmark = [pytest.mark.thorough, needs_qemu]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path


def start(image: Path, options: str) -> subprocess.Popen[str]:
    arguments = ["-display", "none", "-nodefaults", "-S", "-M", "pc,accel=tcg", "-qmp", "stdio"]
    drive = f"format=raw,file={image},{options}"
    return subprocess.Popen(
        [str(QEMU), *arguments, "-drive", drive],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def qemu(image: Path, options: str) -> Iterator[None]:
    """A QEMU that has opened the image, until the end of the block."""
    with start(image, options) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"execute": "qmp_capabilities"}))
        process.stdin.flush()
        for line in process.stdout:
            if "return" in json.loads(line):
                break
        else:
            assert process.stderr is not None
            raise AssertionError(process.stderr.read())
        yield
        process.kill()


@pytest.mark.parametrize(
    ("options", "write", "refused"),
    [
        ("media=disk", True, True),
        ("media=disk", False, True),
        ("media=cdrom", True, True),
        ("media=cdrom", False, False),
        ("snapshot=on", True, True),
        ("snapshot=on", False, False),
    ],
)
def test_kvmbox_beside_qemu(image: Path, options: str, write: bool, refused: bool) -> None:
    with qemu(image, options):
        if refused:
            with pytest.raises(StartError, match="another program"):
                DiskFile(str(image), write=write)
        else:
            DiskFile(str(image), write=write).close()


@pytest.mark.parametrize(
    ("options", "write", "refused"),
    [
        ("media=disk", True, True),
        ("media=disk", False, True),
        ("media=cdrom", True, True),
        ("media=cdrom", False, False),
    ],
)
def test_qemu_beside_kvmbox(image: Path, options: str, write: bool, refused: bool) -> None:
    file = DiskFile(str(image), write=write)
    if refused:
        with start(image, options) as process:
            _, told = process.communicate()
        assert process.returncode == 1
        assert "Failed to get" in told
    else:
        with qemu(image, options):
            pass
    file.close()
