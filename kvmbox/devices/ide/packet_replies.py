"""What a CD-ROM drive answers to packets: bytes made of its state, and nothing else.

Sources: MMC-3 (T10/1363D, chapters 5 and 6), SPC-2 for INQUIRY, MODE SENSE and sense data, SFF-8020i. The
medium is a data CD with one session and one track.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

CD_SECTOR_SIZE: Final = 2048

# Sense: key, and additional sense code.
NO_SENSE: Final = (0x0, 0x00)
MEDIUM_NOT_PRESENT: Final = (0x2, 0x3A)
REMOVAL_PREVENTED: Final = (0x2, 0x53)
UNRECOVERED_READ_ERROR: Final = (0x3, 0x11)
INVALID_COMMAND: Final = (0x5, 0x20)
OUT_OF_RANGE: Final = (0x5, 0x21)
INVALID_FIELD: Final = (0x5, 0x24)
SAVING_NOT_SUPPORTED: Final = (0x5, 0x39)

MOST_SENSE_KEY: Final = 0xF

_ONE_TRACK: Final = 1
_LEAD_OUT: Final = 0xAA
_DATA_TRACK: Final = 0x14  # a data track; the Q channel has its position
_PREGAP: Final = 150  # frames before the first one of LBA
_MOST_OF_A_CD: Final = 80 * 60 * 75
"""Sectors of 80 minutes. A larger medium is a DVD."""

_INQUIRY: Final = bytes((0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0)) + b"KVMBOX  CD-ROM          1.0 "
_BIG_SHORT: Final = Struct(">H")
_TWO_WORDS: Final = Struct(">II")
_PROFILES: Final = Struct(">I2xH HBB HBx HBx")
_NO_EVENTS: Final = bytes((0, 0, 0x80, 0x10))
_MEDIA_EVENTS: Final = 0x10

CURRENT_VALUES: Final = 0
SAVED_VALUES: Final = 3
ALL_PAGES: Final = 0x3F

# Medium types (SFF-8020i).
_CD_DATA: Final = 0x01
_DOOR_OPEN: Final = 0x71


def inquiry() -> bytes:
    """INQUIRY: a removable CD-ROM drive."""
    return _INQUIRY


def sense(key: int, code: int) -> bytes:
    """REQUEST SENSE, 18 bytes of the fixed format."""
    return bytes((0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, 0, 0, 0, 0, 0))


def capacity(sectors: int) -> bytes:
    """READ CAPACITY: the last sector, and the bytes of one."""
    return _TWO_WORDS.pack(max(sectors - 1, 0), CD_SECTOR_SIZE)


def _frames(lba: int) -> tuple[int, int, int]:
    """Minutes, seconds and frames, 75 to a second; they wrap as the bytes that they are."""
    seconds, frame = divmod(lba + _PREGAP, 75)
    return seconds // 60 & 0xFF, seconds % 60, frame


def _place(lba: int, as_time: bool) -> bytes:
    return bytes((0, *_frames(lba))) if as_time else lba.to_bytes(4, "big")


def _with_length(data: bytes) -> bytes:
    return _BIG_SHORT.pack(len(data)) + data


def toc(sectors: int, as_time: bool, first: int) -> bytes | None:
    """READ TOC, format 0: from track `first` on. None if there is no such track."""
    if first > _ONE_TRACK and first != _LEAD_OUT:
        return None
    data = bytes((_ONE_TRACK, _ONE_TRACK))
    if first <= _ONE_TRACK:
        data += bytes((0, _DATA_TRACK, _ONE_TRACK, 0)) + _place(0, as_time)
    return _with_length(data + bytes((0, 0x16, _LEAD_OUT, 0)) + _place(sectors, as_time))


def session(as_time: bool) -> bytes:
    """READ TOC, format 1: the first track of the last session."""
    return _with_length(bytes((1, 1, 0, _DATA_TRACK, _ONE_TRACK, 0)) + _place(0, as_time))


def raw_toc(sectors: int, as_time: bool) -> bytes:
    """READ TOC, format 2: the Q channel of the lead-in. Points 0xA0 to 0xA2, and the track."""
    data = bytes((1, 1))
    for point, place in (
        (0xA0, bytes((0, _ONE_TRACK, 0, 0))),
        (0xA1, bytes((0, _ONE_TRACK, 0, 0))),
        (0xA2, _place(sectors, as_time)),
        (_ONE_TRACK, _place(0, as_time)),
    ):
        data += bytes((1, _DATA_TRACK, 0, point, 0, 0, 0)) + place
    return _with_length(data)


_ERROR_RECOVERY: Final = bytes((0x01, 6, 0, 5, 0, 0, 0, 0))
_AUDIO_CONTROL: Final = bytes((0x0E, 14, 4, *bytes(13)))


def _capabilities(is_locked: bool) -> bytes:
    """Reads CD-R, CD-RW and DVDs, mode 2 and sessions, from a tray that it can lock and open; 704 kB/s."""
    lock = 0x29 | is_locked << 1
    return bytes((0x2A, 20, 0x3B, 0, 0x70, 0, lock, 0, 2, 0xC0, 0, 0, 2, 0, 2, 0xC0, *bytes(6)))


def mode_pages(code: int, is_locked: bool) -> bytes | None:
    """The mode pages of that code, or of all codes; None if there is none."""
    pages: Mapping[int, bytes] = {
        0x01: _ERROR_RECOVERY,
        0x0E: _AUDIO_CONTROL,
        0x2A: _capabilities(is_locked),
    }
    return b"".join(pages.values()) if code == ALL_PAGES else pages.get(code)


def mode_sense(pages: bytes, is_long: bool, is_open: bool) -> bytes:
    """MODE SENSE(10), or MODE SENSE(6) if not `is_long`: a header and `pages`."""
    medium = _DOOR_OPEN if is_open else _CD_DATA
    if is_long:
        return _with_length(bytes((medium, 0, 0, 0, 0, 0)) + pages)
    return bytes((3 + len(pages), medium, 0, 0)) + pages


def configuration(sectors: int, is_open: bool, first: int) -> bytes:
    """GET CONFIGURATION: the list of profiles, which is feature 0, if features from `first` on include it."""
    is_dvd = sectors > _MOST_OF_A_CD
    current = 0 if is_open else 0x10 if is_dvd else 0x08
    profiles = (0x10, current == 0x10, 0x08, current == 0x08)
    data = _PROFILES.pack(16, current, 0, 3, 8, *profiles)
    return data if first == 0 else _TWO_WORDS.pack(4, current)


def events(classes: int, is_open: bool) -> bytes:
    """GET EVENT STATUS NOTIFICATION: nothing has happened to the medium, which is there or not."""
    if not classes & _MEDIA_EVENTS:
        return _NO_EVENTS
    return bytes((0, 4, 4, _MEDIA_EVENTS, 0, 1 if is_open else 2, 0, 0))


def mechanism() -> bytes:
    """MECHANISM STATUS: one disc, no changer."""
    return bytes((0, 0, 0, 0, 0, 1, 0, 0))


def disc_information() -> bytes:
    """READ DISC INFORMATION: a finished disc of one session with one track."""
    return _with_length(bytes((0x0E, 1, 1, 1, 1, 0x20, *bytes(26))))


def sub_channel(as_time: bool, wants_data: bool) -> bytes:
    """READ SUB-CHANNEL: no audio is played; the current position is the beginning of the track."""
    if not wants_data:
        return bytes((0, 0x15, 0, 0))
    position = _place(0, as_time) + bytes(4)
    return bytes((0, 0x15, 0, 12, 1, _DATA_TRACK, _ONE_TRACK, 1)) + position
