"""Whatever reads what others wrote: files, packets, words. Each refuses it in one line, or takes all of it.

An input is a right text or image that is edited: places are changed, words of the format are put in, pieces
are cut out. So checksums and lengths can be put right behind the damage where a reader would look no further.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from kvmbox.base.errors import KvmboxError
from tests.support.dice import Dice

MOST_WORDS: Final = 600
"""Characters of a refusal."""


class Fault(AssertionError):
    """What must not happen."""


def edited(dice: Dice, data: bytes, words: Sequence[bytes] = ()) -> bytes:
    """The data with some places changed, a few words put in, or pieces left out."""
    made = bytearray(data)
    for _ in range(dice.byte() % 6):
        at = dice.number(2) % (len(made) + 1)
        match dice.byte() % 8:
            case 0 | 1 if words:
                word = dice.some(words)
                made[at : at + len(word) * (dice.byte() & 1)] = word
            case 2:
                size = dice.some((1, 2, 4, 8))
                made[at : at + size] = dice.some((0, 1, (1 << 8 * size) - 1, dice.number(size))).to_bytes(
                    size, dice.some(("little", "big"))
                )
            case 3:
                del made[at : at + dice.some((1, 4, 40, len(made)))]
            case 4 if at < len(made):
                made[at] ^= 1 << dice.byte() % 8
            case 5:
                start = dice.number(2) % (len(made) + 1)
                made[at:at] = made[start : start + dice.byte()]
            case _:
                piece = dice.randbytes(dice.byte() % 9)
                made[at : at + len(piece)] = piece
    return bytes(made)


def told(error: Exception) -> None:
    """An error is one line of a decent length. Raises Fault."""
    for text in (str(error), getattr(error, "hint", None) or ""):
        if not text.isprintable() or len(text) > MOST_WORDS:
            raise Fault(f"refused as {text!r}") from error


def refused(act: Callable[[], Any]) -> Any:
    """What `act` gives, or None if it refuses in one line of a decent length."""
    try:
        return act()
    except KvmboxError as error:
        told(error)
        return None


@contextmanager
def in_file(data: bytes) -> Iterator[str]:
    """The path of a file with these bytes, which nobody else sees."""
    descriptor = os.memfd_create("fuzzed", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def checksum(data: bytes) -> int:
    """The CRC-32 that files of kvmbox have."""
    return binascii.crc32(data)
