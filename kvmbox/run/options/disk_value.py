"""The value of `--disk`: FILE[,write|overlay|readonly][,format=…][,on=…][,serial=TEXT][,backing=FILE].

A comma in a file name is doubled, as QEMU wants it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, Final

from kvmbox.host.disk.stores import OVERLAY, QCOW2, RAW, READ_ONLY, VHD, WRITE, DiskRequest

__all__ = ["DiskRequest", "parse", "parse_cd"]

MOST_SERIAL: Final = 20
"""Bytes of a serial number: ATA's IDENTIFY DEVICE, words 10 to 19, and virtio-blk's VIRTIO_BLK_T_GET_ID."""

_MODES: Final = (WRITE, OVERLAY, READ_ONLY)
_CHOICES: Final = {"format": (RAW, QCOW2, VHD), "on": ("ide", "virtio")}
_TEXTS: Final = ("serial", "backing")
_WORDS: Final = (*_MODES, *(f"{key}=" for key in (*_CHOICES, *_TEXTS)))


def parse(text: str) -> DiskRequest:
    """The disk that `text` asks for. ValueError, in one line."""
    if "\0" in text:
        raise ValueError(f"{text!r} has a NUL, which no file name has")
    path, *words = split(text)
    if not path:
        raise ValueError(f"'{text}' names no file: FILE comes first, and words follow it, such as FILE,write")
    given: dict[str, Any] = {}
    for word in words:
        key, value = _meaning(word)
        if key in given:
            raise ValueError(f"'{text}' says {key} twice: {given[key]} and {value}")
        given[key] = value
    if "backing" in given and given.get("format", QCOW2) != QCOW2:
        raise ValueError(f"'{text}': only a qcow2 image has a backing file")
    return DiskRequest(path=path, **given)


def parse_cd(text: str) -> DiskRequest:
    """The CD in the file `text`: the whole of it, so a comma is a comma. ValueError if it is empty."""
    if not text:
        raise ValueError("an empty text names no file")
    return DiskRequest(text, READ_ONLY, RAW, is_cd=True)


def with_paths(text: str, place: Callable[[str], str]) -> str:
    """The same value with other paths: what `place` makes of each. Any other text stays as wrong as it is."""
    if "\0" in text:
        return text
    path, *words = split(text)
    parts = [place(path) if path else ""]
    for word in words:
        key, _, value = word.partition("=")
        parts.append(f"{key}={place(value)}" if key == "backing" and value else word)
    return joined(parts)


def split(text: str) -> list[str]:
    """The parts between single commas. Two commas are one of a part."""
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]


def joined(parts: Iterable[str]) -> str:
    """The text that `split` makes these parts of."""
    return ",".join(part.replace(",", ",,") for part in parts)


def _meaning(word: str) -> tuple[str, str]:
    """The field of DiskRequest that a word is about, and its value."""
    if word in _MODES:
        return "mode", word
    key, equals, value = word.partition("=")
    if equals and key in _CHOICES:
        if value not in _CHOICES[key]:
            known = " or ".join(f"{key}={one}" for one in _CHOICES[key])
            raise ValueError(f"'{word}' is not {known}{_guess(value, _CHOICES[key])}")
        return key, value
    if equals and key in _TEXTS:
        if not value:
            raise ValueError(f"'{word}' has nothing behind '='")
        if key == "serial" and (len(value) > MOST_SERIAL or not value.isascii() or not value.isprintable()):
            raise ValueError(
                f"'{word}': a serial number has at most {MOST_SERIAL} printable ASCII characters"
            )
        return key, value
    raise ValueError(
        f"'{word}' is none of {', '.join(_WORDS)} (a comma in a file name is doubled)"
        f"{_guess(key + equals, _WORDS)}"
    )


def _guess(word: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(word, known, n=1)
    return f": did you mean '{close[0]}'?" if close else ""
