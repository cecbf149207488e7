"""Build hook: a wheel ships guests and launchers built, so that `kvmbox run hello32` works after install."""

from __future__ import annotations

import subprocess
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TAG: Final = "py3-none-manylinux_2_17_x86_64.musllinux_1_1_x86_64"
"""Any Python and any C library of Linux on x86-64: the launchers are programs for it that need no library."""


class GuestBuildHook(BuildHookInterface[Any]):
    """Runs guests/Makefile and launcher/Makefile before a wheel is put together, an editable one too."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build both; a missing compiler ends the build with make's own message."""
        build_data["tag"] = TAG
        for directory in ("guests", "launcher"):
            try:
                subprocess.run(["make", "-C", f"{self.root}/{directory}"], check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise SystemExit(
                    f"kvmbox: error: cannot build what is in {directory}/: {error}\n"
                    "hint: install make and a C compiler (cc, as, ld)"
                ) from error
