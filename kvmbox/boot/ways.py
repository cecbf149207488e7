"""All ways to boot, in the order in which an image is offered to them (docs/adr/booting.md).

The first that makes an offer is taken. A run does not load the ways that have nothing to say of its image.
Each way has a sign, which is looked for without the module of the way. If an image does not have the sign,
the way neither offers to boot it nor knows what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from kvmbox.base.layout import KIB
from kvmbox.boot.elf.headers import ELF_MAGIC
from kvmbox.boot.elf.notes import find_note
from kvmbox.boot.image import GuestImage
from kvmbox.boot.plan import Way


def _holds(magic: bytes, first: int, end: int) -> Callable[[bytes], bool]:
    return lambda data: data.find(magic, first, end) >= 0


_SIGNS: Final[dict[str, Callable[[bytes], bool]]] = {
    "firmware": lambda data: len(data) % (64 * KIB) == 0,
    "pvh": lambda data: find_note(data, b"Xen") is not None,
    "multiboot": _holds(b"\x02\xb0\xad\x1b", 0, 8192),
    "multiboot2": _holds(b"\xd6\x50\x52\xe8", 0, 32768),
    "linux": lambda data: data[0x202:0x206] == b"HdrS" or find_note(data, b"Linux") is not None,
    "elf": lambda data: data.startswith(ELF_MAGIC),
    "iso": _holds(b"CD001", 0x8001, 0x8006),
    "bios": _holds(b"\x55\xaa", 510, 512),
    "real": lambda _data: False,  # it has to be asked for
}

NAMES: Final = tuple(_SIGNS)


def way(name: str) -> Way:
    """The way of one of `NAMES`."""
    found: Way
    match name:
        case "firmware":
            from kvmbox.boot.rom.way import Firmware

            found = Firmware()
        case "pvh":
            from kvmbox.boot.pvh.way import Pvh

            found = Pvh()
        case "multiboot":
            from kvmbox.boot.multiboot.way import Multiboot

            found = Multiboot()
        case "multiboot2":
            from kvmbox.boot.multiboot2.way import Multiboot2

            found = Multiboot2()
        case "linux":
            from kvmbox.boot.linux.way import Linux

            found = Linux()
        case "elf":
            from kvmbox.boot.elf.way import Elf

            found = Elf()
        case "iso":
            from kvmbox.boot.disk.cd_way import Cd

            found = Cd()
        case "bios":
            from kvmbox.boot.bios.way import BootSector

            found = BootSector()
        case _:
            from kvmbox.boot.real_mode.way import Real

            found = Real()
    return found


def ways(image: GuestImage | None = None) -> Iterator[Way]:
    """The ways that `NAMES` names; only those whose sign `image` has, if there is one."""
    for name, has_sign in _SIGNS.items():
        if image is None or has_sign(image.data):
            yield way(name)
