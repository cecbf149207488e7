"""Build hook: a wheel ships guests and launchers built, so that `kvmbox run hello32` works after install.

It ships the manual pages, and the compiled hot path for the Python that builds it, if that can be built.
Otherwise, and with KVMBOX_PURE=1 in the environment, the wheel is for every Python, and pure.

A source distribution has guests and launchers built, too. A wheel that is built of it where there is no
compiler takes them: what came with the same sources is what the compiler would have made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TAG: Final = "py3-none-manylinux_2_17_x86_64.musllinux_1_1_x86_64"
"""Any Python and any C library of Linux on x86-64: the launchers are programs for it that need no library."""

VERSION: Final = f"cp{sys.version_info.major}{sys.version_info.minor}"
COMPILED_TAG: Final = f"{VERSION}-{VERSION}-linux_x86_64"
"""This Python, and the C library that it was built with: auditwheel finds out what others it may be."""


BUILT: Final = ("kvmbox/guest_images/hello32.elf", "launcher/build/kvmbox")
"""Whether these are there tells whether all is."""


class GuestBuildHook(BuildHookInterface[Any]):
    """Runs guests/Makefile and launcher/Makefile before a wheel is put together, an editable one too."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build both; a missing compiler ends the build with make's own message."""
        if self.target_name == "sdist":
            self._make()
            return
        build_data["tag"] = TAG
        if self._compile():
            build_data["tag"] = COMPILED_TAG
            build_data["pure_python"] = False  # libraries go to platlib, which may be another folder
            build_data["artifacts"].append(f"kvmbox/*/*{sysconfig.get_config_var('EXT_SUFFIX')}")
        if not all(map(shutil.which, ("cc", "make"))) and all(map(self._is_there, BUILT)):
            self.app.display_warning(
                "kvmbox: no compiler: guests and launcher are those of the sources, built before"
            )
        else:
            self._make()
        if version != "editable":
            self._write_manual(build_data)

    def _is_there(self, path: str) -> bool:
        return os.path.exists(f"{self.root}/{path}")

    def _make(self) -> None:
        for directory in ("guests", "launcher"):
            try:
                subprocess.run(["make", "-C", f"{self.root}/{directory}"], check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise SystemExit(
                    f"kvmbox: error: cannot build what is in {directory}/: {error}\n"
                    "hint: install make and a C compiler (cc, as, ld), or take a wheel or a release's sdist"
                ) from error

    def _write_manual(self, build_data: dict[str, Any]) -> None:
        """The manual pages, which only a wheel has a place for."""
        directory = f"{self.root}/build/man"
        shutil.rmtree(directory, ignore_errors=True)
        # A module of the working directory, which has kvmbox as well. An isolated build by pip drops from
        # PYTHONPATH each path that the environment of pip itself has, such as that of an editable install.
        tool = [sys.executable, "-m", "tools.man_pages", directory]
        if subprocess.run(tool, cwd=self.root, check=False).returncode:
            raise SystemExit("kvmbox: error: cannot write the manual pages\nhint: pip install click-man")
        for name in sorted(os.listdir(directory)):
            build_data["shared_data"][f"{directory}/{name}"] = f"share/man/man1/{name}"

    def _compile(self) -> bool:
        """Whether the compiled hot path is wanted, and there now. The tool says why it is not there."""
        if os.environ.get("KVMBOX_PURE", "0") not in ("", "0"):
            return False
        tool = [sys.executable, f"{self.root}/tools/build_accelerator.py"]
        return subprocess.run(tool, check=False).returncode == 0
