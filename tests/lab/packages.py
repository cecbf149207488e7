"""What the lab takes from Debian: QEMU (installed, by root), a kernel and BusyBox (unpacked into a cache).

Only apt and dpkg are used, and only with the names of the packages that are wanted. What was unpacked once is
used again without a network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

EMULATOR: Final = "qemu-system-x86_64"
EMULATOR_PACKAGE: Final = "qemu-system-x86"
KERNEL_PACKAGE: Final = "linux-image-amd64"
BUSYBOX_PACKAGE: Final = "busybox-static"


class Unavailable(Exception):
    """Something that the lab needs cannot be had on this host. The text is one line, fit for a user."""


def emulator() -> str:
    """The path of QEMU's x86 system emulator; root gets it installed."""
    path = shutil.which(EMULATOR)
    if path is None and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "-y", "--no-install-recommends", EMULATOR_PACKAGE]
        if not _succeeds(command):
            _succeeds(["apt-get", "update"])
            _succeeds(command)
        path = shutil.which(EMULATOR)
    if path is None:
        raise Unavailable(
            f"{EMULATOR} not found, and it cannot be installed: apt-get install {EMULATOR_PACKAGE}"
        )
    return path


def kernel(cache: Path, package: str = KERNEL_PACKAGE) -> Path:
    """The directory with boot/vmlinuz-* of a kernel image package; of a meta package, what it stands for."""
    return _unpacked(cache, package, follow=re.compile(r"^\s*Depends: (linux-image-\S+)$", re.M))


def busybox(cache: Path) -> Path:
    """A BusyBox that needs no library."""
    return _unpacked(cache, BUSYBOX_PACKAGE) / "usr/bin/busybox"


def _unpacked(cache: Path, package: str, *, follow: re.Pattern[str] | None = None) -> Path:
    """The directory that holds `package`, or the dependency of it that matches `follow`."""
    target = cache / package
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as scratch:
            name = package
            if follow and (found := follow.search(_dependencies(package))):
                name = found[1]
            archive = _download(name, Path(scratch))
            tree = Path(scratch, "tree")
            subprocess.run(["dpkg-deb", "-x", archive, tree], check=True)
            tree.rename(target)
    return target


def _dependencies(package: str) -> str:
    _need("apt-cache")
    done = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True, check=False)
    if done.returncode and _can_update():
        done = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"apt knows no package {package}: is this Debian, and was apt-get update run?")
    return done.stdout


def _download(package: str, directory: Path) -> Path:
    for tool in ("apt-get", "dpkg-deb"):
        _need(tool)
    # As root apt downloads as another user, who needs a directory of their own choice: not here.
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]
    if not _succeeds(command, directory) and not (_can_update() and _succeeds(command, directory)):
        raise Unavailable(f"package {package} cannot be downloaded: no network, or apt's lists are too old")
    (archive,) = directory.glob("*.deb")
    return archive


def _can_update() -> bool:
    return os.geteuid() == 0 and _succeeds(["apt-get", "update"])


def _succeeds(command: list[str], directory: Path | None = None) -> bool:
    done = subprocess.run(
        command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return done.returncode == 0


def _need(tool: str) -> None:
    if shutil.which(tool) is None:
        raise Unavailable(f"{tool} not found: the lab's kernel and tools are Debian packages")
