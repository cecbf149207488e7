"""A real browser, where one is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.patience import patience


def dom_of(page: Path) -> str:
    """What headless Chromium makes of a page, when its scripts have run. Skips the test without Chromium."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *(f"--user-data-dir={page.parent}/profile", "--dump-dom", f"file://{page}"),
        ],
        capture_output=True,
        text=True,
        timeout=patience(120),
        check=True,
    )
    return done.stdout
