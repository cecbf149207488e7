"""Fixtures of the integration tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.runs import Images


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """Writes guests into this test's own directory, and runs them."""
    return Images(tmp_path)
