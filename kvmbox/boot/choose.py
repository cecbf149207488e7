"""Which way an image boots: the first that makes an offer for its content, or the one that was asked for.

An image's name counts for nothing. One that no way makes an offer for is named as well as it can be
(`boot.unsupported_formats`).
"""

from __future__ import annotations

from typing import Final

from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.value_classes import Value
from kvmbox.boot.image import ACCEPTED, GuestImage
from kvmbox.boot.plan import NO_BIOS, Refusal, Way
from kvmbox.boot.ways import NAMES, way, ways

AUTO: Final = "auto"
BOOT_SECTOR: Final = "bios"
WAY_NAMES: Final = (AUTO, *NAMES)


class Choice(Value):
    """The way that was chosen. `hint` names another way, for the case that this one is wrong, or is empty."""

    way: Way
    hint: str = ""


def choose(image: GuestImage, name: str = AUTO, *, bios: str | None = None) -> Choice:
    """The way named `name`, or the first that makes an offer without a doubt. Raises ImageError, UsageError.

    With `bios` "none", a boot sector is a flat 16-bit image.
    """
    choice = _choose(image, name)
    if choice.way.name == BOOT_SECTOR and bios == NO_BIOS:
        return Choice(_named("real"), choice.hint)
    return choice


def _choose(image: GuestImage, name: str) -> Choice:
    if name != AUTO:
        return Choice(_named(name))
    refused: Refusal | None = None
    doubted: Refusal | None = None
    for one in ways(image):
        found = one.examine(image)
        if isinstance(found, Refusal):
            if found.kind and refused is None:
                refused = found
        elif found.doubt:
            if doubted is None:
                doubted = Refusal(
                    f"it may be {found.kind}, but {found.doubt}",
                    f"if it is {found.kind}, it needs --boot {one.name}",
                )
        elif refused is not None and one.name == BOOT_SECTOR:
            break  # a kernel may begin with a boot sector, but that one only says that it is none
        else:
            return Choice(one, "" if doubted is None else doubted.hint)
    if refused is not None:
        raise image.error(f"it is {refused.kind}: {refused.reason}", hint=refused.hint or None)
    if doubted is not None:
        raise image.error(doubted.reason, hint=doubted.hint)
    raise unrecognised(image)


def _named(name: str) -> Way:
    if name not in NAMES:
        raise UsageError(f"--boot {name} is none of {', '.join(WAY_NAMES)}")
    return way(name)


def unrecognised(image: GuestImage) -> ImageError:
    """The refusal of an image that no way makes an offer for."""
    from kvmbox.boot.unsupported_formats import foreign_file

    data = image.data
    if not data:
        return image.error(f"the file is empty; {ACCEPTED}", hint="build or copy it again")
    foreign = foreign_file(data)
    if foreign is not None:
        return image.error(f"it is {foreign.kind}; {ACCEPTED}", hint=foreign.hint)
    return image.error(
        f"it is of no known kind (first bytes {data[:8].hex(' ')}); {ACCEPTED}",
        hint="a flat 16-bit image needs --boot real",
    )
