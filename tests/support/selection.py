"""Which tests `make test` leaves to `make check`: those with the marker `thorough`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first_per_commit(values: Iterable[Any]) -> list[Any]:
    """Parameters of a test: `make test` takes the first of `values`, and `make check` all."""
    first, *others = values
    return [first, *(pytest.param(value, marks=pytest.mark.thorough) for value in others)]
