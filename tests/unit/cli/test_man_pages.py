"""The manual pages are made from the help texts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kvmbox.cli import main

TOOL = Path(__file__).parents[3] / "tools/man_pages.py"


def test_every_command_has_a_page_and_two_builds_are_equal(tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        subprocess.run([sys.executable, str(TOOL), str(tmp_path / name)], check=True)
        pages.append({page.name: page.read_text() for page in (tmp_path / name).iterdir()})
    assert pages[0] == pages[1]
    assert set(pages[0]) == {"kvmbox.1", *(f"kvmbox-{name}.1" for name in main.COMMANDS)}
    run = pages[0]["kvmbox-run.1"]
    assert r"kvmbox\-run \- boot a guest" in run
    assert r"\fB\-\-memory\fP SIZE" in run
    assert "\n\\(aqvmm-vcpu', and the same" in pages[0]["kvmbox-policy.1"]
    assert "\n.nf\nExit status:\n  0    shown;" in pages[0]["kvmbox-policy.1"]
    assert not any(line.startswith("'") for page in pages[0].values() for line in page.splitlines())
    for name in main.COMMANDS:
        assert f"kvmbox-{name}(1)" in pages[0]["kvmbox.1"]
