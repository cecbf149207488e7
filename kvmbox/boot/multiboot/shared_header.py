"""What the headers of both versions of Multiboot share: how they are found, and where the image is to go."""

from __future__ import annotations

import struct
from collections.abc import Callable

from kvmbox.boot.image import GuestImage
from kvmbox.boot.segments import LoadSegment


def find(data: bytes, magic: int, words: int, *, align: int, within: int) -> int | None:
    """The offset of the first header whose `words` add up to 0, aligned, in the first bytes; or None."""
    layout, wanted = struct.Struct(f"<{words}I"), magic.to_bytes(4, "little")
    position = data.find(wanted, 0, within)
    while position >= 0:
        is_whole = position % align == 0 and position + layout.size <= min(len(data), within)
        if is_whole and sum(layout.unpack_from(data, position)) & 0xFFFF_FFFF == 0:
            return position
        position = data.find(wanted, position + 1, within)
    return None


def placed(
    image: GuestImage, version: str, offset: int, fields: tuple[int, ...], absurd: Callable[[str], Exception]
) -> LoadSegment:
    """The one segment that the address fields of a header ask for: header, load, load_end and bss_end.

    A `load_end_addr` of 0 means to the end of the file, a `bss_end_addr` of 0 that there is no bss.
    """
    header_address, load, load_end, bss_end = fields
    if load > header_address:
        raise absurd(f"load_addr {load:#x} is above header_addr {header_address:#x}")
    start = offset - (header_address - load)
    if start < 0:
        raise absurd(f"load_addr {load:#x} is {-start} bytes before the start of the file")
    available = len(image.data) - start
    if load_end and load_end <= load:
        raise absurd(f"load_end_addr {load_end:#x} is not above load_addr {load:#x}")
    file_size = load_end - load if load_end else available
    if file_size > available:
        raise image.error(
            f"it is cut short: its {version} header loads {file_size} bytes from offset {start},"
            f" and the file has {len(image.data)}",
            hint="build or copy it again",
        )
    if bss_end and bss_end < load + file_size:
        raise absurd(f"bss_end_addr {bss_end:#x} is below the end of the data, {load + file_size:#x}")
    return LoadSegment(0, start, file_size, load, bss_end - load if bss_end else file_size)
