"""What helps where there is no image of a name. Loaded for an error only."""

from __future__ import annotations

from difflib import get_close_matches

from kvmbox.boot.bundled import catalogue


def advice(name: str) -> str:
    """The hint."""
    if name == "-":
        return "kvmbox reads no image from stdin: copy it to a file first"
    close = get_close_matches(name, [guest.name for guest in catalogue()], 1)
    guess = f"did you mean '{close[0]}'?" if close else "check the path;"
    return f"{guess} `kvmbox guests` lists bundled guests"
