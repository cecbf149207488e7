"""The exception of this package."""

from __future__ import annotations


class RefusedError(Exception):
    """What a client asks for cannot be had; the text says why, in words for the person."""
