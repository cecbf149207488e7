"""Build hook: a wheel ships the guests built, so that `kvmbox run hello32` works right after install."""

from __future__ import annotations

import subprocess
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GuestBuildHook(BuildHookInterface[Any]):
    """Runs guests/Makefile, which writes kvmbox/guest_images/, before the wheel is put together."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the guests; a missing compiler ends the build with make's own message."""
        try:
            subprocess.run(["make", "-C", f"{self.root}/guests"], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(
                f"kvmbox: error: cannot build the bundled guests: {error}\n"
                "hint: install make and a C compiler (cc, as, ld)"
            ) from error
