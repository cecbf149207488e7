"""What an e1000 leaves to be done with a frame before it is sent: checksums, segments, a VLAN tag. Pure.

Source: PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (317453), 3.5 (segments),
3.6 (checksums) and 9.2 (tags). A driver asks for both without asking whether the chip can.

Frame and wish are the guest's: a place that is not in the frame is left alone, and how many segments a frame
may have is bounded.
"""

from __future__ import annotations

from typing import Final

from kvmbox.devices.e1000 import model as e1000

MOST_SEGMENTS: Final = 128
_TOTAL, _NUMBER, _PAYLOAD6, _HEADER6 = 2, 4, 4, 40  # of an IP header: total length, identification; IPv6
_SEQUENCE, _FLAGS, _LENGTH = 4, 13, 4  # of a TCP header; of a UDP header
_LAST_ONLY: Final = 0x09  # FIN and PSH


def finished(frame: bytes, wish: bytes) -> list[bytes]:
    """The frames to send: with checksums, and in segments if they are wanted. None if there are too many."""
    flags, *sums, header, most, tag = e1000.OFFLOAD.unpack(wish)
    ip, tcp = (sums[0], sums[1], sums[2]), (sums[3], sums[4], sums[5])
    made = [bytearray(frame)]
    if flags & e1000.SEGMENTS:
        payload = frame[header:]
        if not most or len(payload) > most * MOST_SEGMENTS:
            return []
        made = [
            _segment(frame[:header], payload, place, most, flags, ip[0], tcp)
            for place in range(0, len(payload), most)
        ]
    for one in made:
        _sum(one, flags, ip, tcp)
        if tag:
            one[e1000.TAG_PLACE : e1000.TAG_PLACE] = tag.to_bytes(e1000.TAG_SIZE, "big")
    return list(map(bytes, made))


def _segment(
    header: bytes, payload: bytes, place: int, most: int, flags: int, ip: int, tcp: tuple[int, int, int]
) -> bytearray:
    """The segment whose payload begins at `place`, but for its checksums."""
    made = bytearray(header + payload[place : place + most])
    if flags & e1000.IS_IPV4:
        _put(made, ip + _TOTAL, len(made) - ip)
        _put(made, ip + _NUMBER, _get(made, ip + _NUMBER) + place // most)
    else:
        _put(made, ip + _PAYLOAD6, len(made) - ip - _HEADER6)
    start, field, _ = tcp
    if flags & e1000.IS_TCP:
        _put(made, start + _SEQUENCE, _get(made, start + _SEQUENCE, 4) + place, 4)
        if place + most < len(payload):
            _put(made, start + _FLAGS, _get(made, start + _FLAGS, 1) & ~_LAST_ONLY, 1)
    else:
        _put(made, start + _LENGTH, len(made) - start)
    # The driver has put the sum of the pseudo header there, without the length, which it cannot know.
    _put(made, field, _folded(_get(made, field) + len(made) - start))
    return made


def _sum(frame: bytearray, flags: int, *sums: tuple[int, int, int]) -> None:
    """Put in the checksums that are wanted: from a byte on, at a place, up to a last byte (0: to the end)."""
    for wanted, (start, place, last) in zip((e1000.SUM_IP, e1000.SUM_TCP), sums, strict=True):
        if flags & wanted:
            part = bytes(frame[start : last + 1 if last else len(frame)])
            total = int.from_bytes(part + b"\0" * (len(part) % 2), "big") % 0xFFFF
            _put(frame, place, ~total & 0xFFFF or 0xFFFF)


def _folded(total: int) -> int:
    return (total & 0xFFFF) + (total >> 16)


def _get(data: bytearray, place: int, size: int = 2) -> int:
    return int.from_bytes(data[place : place + size], "big")


def _put(data: bytearray, place: int, value: int, size: int = 2) -> None:
    if place + size <= len(data):
        data[place : place + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "big")
