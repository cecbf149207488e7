"""A real browser, where one is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support.patience import patience

PHONE: Final = "--window-size=390,844"
DARK: Final = "--blink-settings=preferredColorScheme=0"
_AXE: Final = "axe.run().then(found => document.title = JSON.stringify(found.violations.map(one => one.id)))"


def dom_of(page: Path, *options: str) -> str:
    """What headless Chromium makes of a page, when its scripts have run. Skips the test without Chromium."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *(f"--user-data-dir={page.parent}/profile", *options, "--dump-dom", f"file://{page}"),
        ],
        capture_output=True,
        text=True,
        timeout=patience(120),
        check=True,
    )
    return done.stdout


def violations_of(page: Path, *options: str) -> list[str]:
    """The rules of accessibility that axe-core finds broken in a page. Skips the test where KVMBOX_AXE does
    not name axe-core's axe.min.js (`npm pack axe-core` has it).
    """
    axe = os.environ.get("KVMBOX_AXE")
    if axe is None:
        pytest.skip("KVMBOX_AXE does not name an axe.min.js")
    source = page.read_text(encoding="utf-8")
    # The policy of the page would not let axe-core run.
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    probe = page.with_suffix(".axe.html")
    script = Path(axe).read_text(encoding="utf-8")
    probe.write_text(f"{without_policy}<script>{script}</script><script>{_AXE}</script>", encoding="utf-8")
    title = re.search("<title>(.*?)</title>", dom_of(probe, "--virtual-time-budget=60000", *options))
    assert title is not None
    found: list[str] = json.loads(title[1])
    return found
