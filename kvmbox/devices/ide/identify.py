"""What drives say of themselves: the 512 bytes of IDENTIFY DEVICE and of IDENTIFY PACKET DEVICE.

Source: ATA/ATAPI-6 (T13/1410D), 8.15 and 8.16. No drive announces DMA: there is no bus master.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

IDENTIFY_SIZE: Final = 512
MAX_MULTIPLE: Final = 16
"""Sectors of one DRQ block, at most."""

DEFAULT_HEADS: Final = 16
DEFAULT_SECTORS: Final = 63
MOST_CYLINDERS: Final = 16383
"""What the default translation has at most."""

_WORDS: Final = Struct("<256H")
_FIRMWARE: Final = b"1.0"
_DISK_NAME: Final = b"KVMBOX HARDDISK"
_CD_NAME: Final = b"KVMBOX CD-ROM"

# Words 82 to 87: what there is, and what of it is on.
_POWER_MANAGEMENT: Final = 1 << 3
_PACKET: Final = 1 << 4
_WRITE_CACHE: Final = 1 << 5
_DEVICE_RESET: Final = 1 << 9
_NOP: Final = 1 << 14
_LBA_48: Final = 1 << 10
_FLUSH_CACHE: Final = 1 << 12
_FLUSH_CACHE_EXT: Final = 1 << 13
_VALID: Final = 1 << 14

_COMMON: Final = {
    64: 0x0003,  # PIO modes 3 and 4
    67: 120,  # ns of a PIO cycle, without and with flow control
    68: 120,
    80: 0x0070,  # ATA/ATAPI-4 to -6
    84: _VALID,
    87: _VALID,
}


def cylinders(sectors: int, heads: int, sectors_per_track: int) -> int:
    """How many cylinders a disk of `sectors` has in this translation, of those that CHS reaches.

    At least two, as in QEMU: firmware that counts none reads no sector of a small disk by CHS.
    """
    return min(max(sectors // (heads * sectors_per_track), 2), 0xFFFF)


def identify_disk(
    sectors: int, serial: bytes, translation: tuple[int, int], multiple: int, write_cache: bool
) -> bytes:
    """Of a disk with `sectors`. `translation` are the heads and the sectors of a track of the current one."""
    heads, per_track = translation
    current = cylinders(sectors, heads, per_track)
    capacity = current * heads * per_track
    features = _NOP | _WRITE_CACHE | _POWER_MANAGEMENT
    words = _COMMON | {
        0: 0x0040,  # not removable
        1: min(cylinders(sectors, DEFAULT_HEADS, DEFAULT_SECTORS), MOST_CYLINDERS),
        3: DEFAULT_HEADS,
        6: DEFAULT_SECTORS,
        47: 0x8000 | MAX_MULTIPLE,
        49: 0x0A00,  # LBA, flow control
        50: _VALID,
        53: 0x0003,  # words 54 to 58 and 64 to 70 are valid
        54: current,
        55: heads,
        56: per_track,
        59: 0x0100 | multiple,
        82: features,
        83: _VALID | _FLUSH_CACHE_EXT | _FLUSH_CACHE | _LBA_48,
        85: features if write_cache else features & ~_WRITE_CACHE,
        86: _FLUSH_CACHE_EXT | _FLUSH_CACHE | _LBA_48,
    }
    _put(words, 57, capacity, 2)
    _put(words, 60, min(sectors, (1 << 28) - 1), 2)
    _put(words, 100, sectors, 4)
    return _block(words, serial, _DISK_NAME)


def identify_cd(serial: bytes) -> bytes:
    """Of a CD-ROM drive: removable, packets of 12 bytes, DRQ within 50 µs of PACKET, no interrupt for it."""
    features = _NOP | _DEVICE_RESET | _PACKET | _POWER_MANAGEMENT
    words = _COMMON | {
        0: 0x85C0,
        49: 0x0A00,
        53: 0x0002,  # words 64 to 70 are valid
        82: features,
        83: _VALID,
        85: features,
    }
    return _block(words, serial, _CD_NAME)


def _put(words: dict[int, int], word: int, value: int, count: int) -> None:
    """Set `count` words from `word` on to `value`, its low half first."""
    words |= {word + index: value >> 16 * index & 0xFFFF for index in range(count)}


def _block(words: Mapping[int, int], serial: bytes, name: bytes) -> bytes:
    block = bytearray(_WORDS.pack(*(words.get(index, 0) for index in range(256))))
    for word, size, text in ((10, 20, serial), (23, 8, _FIRMWARE), (27, 40, name)):
        padded = text.ljust(size)
        for index in range(0, size, 2):  # the first character of two is the high byte
            block[2 * word + index] = padded[index + 1]
            block[2 * word + index + 1] = padded[index]
    return bytes(block)
