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
        if _run(command).returncode:
            _run(["apt-get", "update"])
            _run(command)
        path = shutil.which(EMULATOR)
    if path is None:
        raise Unavailable(
            f"{EMULATOR} not found, and it cannot be installed: apt-get install {EMULATOR_PACKAGE}"
        )
    return path


class Apt:
    """apt on this host's own lists, or (`suite`) on those of another suite of the same mirror, in `cache`."""

    def __init__(self, cache: Path, suite: str | None = None) -> None:
        self.name = suite or "host"
        self._options = ["-q", "-o", "APT::Sandbox::User=root"]  # or apt downloads as who cannot write here
        self._may_update = suite is not None or os.geteuid() == 0
        if suite is not None:
            self._use_suite(cache / f"apt-{suite}", suite)

    def depends(self, package: str) -> str:
        """What `apt-cache depends` says."""
        return self._output("apt-cache", "depends", package)

    def download(self, package: str, directory: Path) -> Path:
        """The package's file, in `directory`."""
        self._output("apt-get", "download", package, directory=directory)
        (archive,) = directory.glob("*.deb")
        return archive

    def _output(self, tool: str, action: str, package: str, *, directory: Path | None = None) -> str:
        """stdout of an apt command, which is tried again with new lists; Unavailable if it fails even so."""
        for _ in range(2):
            done = _run([tool, *self._options, action, package], directory)
            if done.returncode == 0:
                return done.stdout
            if not self._may_update or _run(["apt-get", *self._options, "update"]).returncode:
                break
        raise Unavailable(f"{tool} {action} {package} fails ({self.name} lists): no network, or not Debian")

    def _use_suite(self, directory: Path, suite: str) -> None:
        """Point apt at `suite`, on the mirror and with the keys that this host uses for Debian."""
        form = "$(REPO_URI) $(SIGNED_BY)"
        done = _run(["apt-get", "indextargets", "--format", form, "Created-By: Packages", "Label: Debian"])
        if done.returncode or not done.stdout:
            raise Unavailable(f"apt has no source of Debian here to take {suite} from")
        mirror, _, keys = done.stdout.splitlines()[0].partition(" ")
        for name in ("lists/partial", "cache/archives/partial"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        sources = directory / "sources.list"
        sources.write_text(f"deb [signed-by={keys}] {mirror} {suite} main\n")
        for key, value in {
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "-",
            "Dir::State::Lists": directory / "lists",
            "Dir::Cache": directory / "cache",
        }.items():
            self._options += ["-o", f"{key}={value}"]


def kernel(cache: Path, package: str = KERNEL_PACKAGE, suite: str | None = None) -> Path:
    """The directory with boot/vmlinuz-* of a kernel image package; of a meta package, what it stands for."""
    return _unpacked(
        cache, Apt(cache, suite), package, follow=re.compile(r"^\s*Depends: (linux-image-\S+)$", re.M)
    )


def busybox(cache: Path) -> Path:
    """A BusyBox that needs no library."""
    return _unpacked(cache, Apt(cache), BUSYBOX_PACKAGE) / "usr/bin/busybox"


def tool(cache: Path, package: str) -> None:
    """Unpack `package`, for programs that the machine's preparation runs from the cache."""
    _unpacked(cache, Apt(cache), package)


def _unpacked(cache: Path, apt: Apt, package: str, *, follow: re.Pattern[str] | None = None) -> Path:
    """The directory that holds `package`, or the dependency of it that matches `follow`."""
    target = cache / (package if apt.name == "host" else f"{package}-{apt.name}")
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as scratch:
            name = package
            if follow and (found := follow.search(apt.depends(package))):
                name = found[1]
            archive = apt.download(name, Path(scratch))
            tree = Path(scratch, "tree")
            if _run(["dpkg-deb", "-x", str(archive), str(tree)]).returncode:
                raise Unavailable(f"{archive.name} cannot be unpacked: dpkg-deb -x fails")
            tree.rename(target)
    return target


def _run(command: list[str], directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{command[0]} not found: the lab's kernel and tools are Debian packages")
    return subprocess.run(
        command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
