"""What the machine tells its guest through fw_cfg: the items, and their layout for the device. Pure.

Keys and names are QEMU's (docs/specs/fw_cfg.rst; the keys are in Linux' uapi header qemu_fw_cfg.h).
Numbers are little-endian, but those of the file directory, which are big-endian.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.firmware.memory_map import memory_map

SIGNATURE: Final = 0x00
ID: Final = 0x01
UUID: Final = 0x02
RAM_SIZE: Final = 0x03
NOGRAPHIC: Final = 0x04
NB_CPUS: Final = 0x05
MACHINE_ID: Final = 0x06
BOOT_MENU: Final = 0x0E
MAX_CPUS: Final = 0x0F
FILE_DIRECTORY: Final = 0x19
FILE_FIRST: Final = 0x20
IRQ0_OVERRIDE: Final = 0x8002
E820_TABLE: Final = 0x8003

FEATURES: Final = 1 | 2  # the traditional interface, DMA

MOST_FILES: Final = 256
MOST_NAME: Final = 55
MOST_BYTES: Final = 256 * layout.MIB
"""Of one item: a guest gets it by one DMA request (`devices.fw_cfg.model.MOST_BY_DMA`)."""

SMALL: Final = 4096
"""Items of up to so many bytes are in the device process. 256 files of that fit in its HELLO."""

_FILE: Final = Struct(f">IHH{MOST_NAME + 1}s")
_DIRECTORY: Final = Struct("<HIQ")  # as `devices.fw_cfg.model` reads it
_E820: Final = Struct("<QQI")


class FwCfgItem(Value):
    """An item: a file with a `name`, or one with no name and a `key` of its own."""

    data: bytes
    name: str = ""
    key: int = 0


class FwCfgContent(Value):
    """All items as the device wants them: see `devices.fw_cfg.model`. `parts` joined are the content."""

    directory: bytes
    small: bytes
    parts: tuple[bytes, ...]


def number(key: int, value: int, size: int) -> FwCfgItem:
    """The item `key`: an integer of `size` bytes."""
    return FwCfgItem(value.to_bytes(size, "little"), key=key)


def machine_items(memory_size: int, cpus: int) -> list[FwCfgItem]:
    """What every guest of a machine with `memory_size` bytes of RAM is told."""
    e820 = b"".join([_E820.pack(one.base, one.length, one.kind) for one in memory_map(memory_size)])
    memory_end = layout.MMIO_HOLE_END + max(0, memory_size - layout.MMIO_HOLE_START)
    return [
        FwCfgItem(b"QEMU", key=SIGNATURE),
        number(ID, FEATURES, 4),
        FwCfgItem(bytes(16), key=UUID),
        number(RAM_SIZE, memory_size, 8),
        number(NOGRAPHIC, 1, 2),
        number(NB_CPUS, cpus, 2),
        number(MACHINE_ID, 0, 4),
        number(BOOT_MENU, 0, 2),
        number(MAX_CPUS, cpus, 2),
        number(IRQ0_OVERRIDE, 1, 4),
        FwCfgItem((len(e820) // _E820.size).to_bytes(4, "little") + e820, key=E820_TABLE),
        FwCfgItem((0xFFFF_FFFF).to_bytes(4, "little"), "etc/boot-fail-wait"),  # for ever
        FwCfgItem(e820, "etc/e820"),
        FwCfgItem(layout.PVPANIC_PORT.to_bytes(2, "little"), "etc/pvpanic-port"),
        FwCfgItem(memory_end.to_bytes(8, "little"), "etc/reserved-memory-end"),
    ]


def content_of(items: Sequence[FwCfgItem]) -> FwCfgContent:
    """Give files their keys, add their directory, and lay all out. UsageError for what cannot be."""
    files = sorted((item for item in items if item.name), key=lambda item: item.name)
    if len(files) > MOST_FILES:
        raise UsageError(f"--fw-cfg: {len(files)} files are more than the {MOST_FILES} that fw_cfg has")
    keyed = {item.key: item.data for item in items if not item.name}
    for index, item in enumerate(files[1:]):
        if item.name == files[index].name:
            raise UsageError(f"--fw-cfg: there are two files with the name '{item.name}'")
    keyed[FILE_DIRECTORY] = len(files).to_bytes(4, "big") + b"".join(
        [
            _FILE.pack(len(item.data), key, 0, item.name.encode("ascii"))
            for key, item in enumerate(files, FILE_FIRST)
        ]
    )
    keyed.update(enumerate((item.data for item in files), FILE_FIRST))
    for key, data in keyed.items():
        if len(data) > MOST_BYTES:
            name = f"'{files[key - FILE_FIRST].name}'" if FILE_FIRST <= key < E820_TABLE else f"{key:#x}"
            raise UsageError(f"fw_cfg item {name} has {len(data)} bytes, at most {MOST_BYTES} can be told")
    return _laid_out(sorted(keyed.items(), key=lambda item: len(item[1]) > SMALL))


def _laid_out(keyed: Iterable[tuple[int, bytes]]) -> FwCfgContent:
    """The content of (key, data) pairs, those of small items first."""
    directory, small, large = b"", b"", []
    place = 0
    for key, data in keyed:
        directory += _DIRECTORY.pack(key, len(data), place)
        place += len(data)
        if len(data) <= SMALL:
            small += data
        else:
            large.append(data)
    return FwCfgContent(directory, small, (small, *large))
