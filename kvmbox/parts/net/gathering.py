"""The port of an e1000, whose frames come in pieces, with what is to be done before they are sent: checksums,
segments, a VLAN tag; or instead of it, in loopback: then a frame waits here, as if it had come.

A piece says its place in the frame, and whether there are more (`devices.e1000.model`). One that is not where
the one before has ended loses its frame: the guest has begun another one, or a snapshot was taken in the
middle.
"""

from __future__ import annotations

from typing import Final

from kvmbox.devices.e1000 import model as e1000
from kvmbox.parts.net.offload import finished
from kvmbox.parts.net.port import MOST_WAITING, Port

_ADDRESS: Final = 6
_TAG: Final = slice(e1000.TAG_PLACE, e1000.TAG_PLACE + e1000.TAG_SIZE)


class GatheringPort(Port):
    """See the module."""

    offer_size = e1000.OFFER.size
    longest = e1000.LONGEST_FRAME

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._frame = bytearray()
        self._wish = b""

    def hear(self, wish: bytes) -> None:
        """What is to be done with the frame that is sent next."""
        self._wish = wish

    def write(self, offset: int, data: bytes) -> None:
        """The guest sends a piece of a frame. Never raises."""
        place = offset & e1000.PLACE_BITS
        if not place:
            self._frame.clear()
        is_next = place == len(self._frame) and place + len(data) <= e1000.MOST_SENT
        if is_next:
            self._frame += data
        if offset & e1000.MORE:
            return
        frame, wish, self._wish = bytes(self._frame), self._wish, b""
        self._frame.clear()
        found = [frame] if is_next else []
        if wish and is_next:
            found = finished(frame, wish) if len(wish) == e1000.OFFLOAD.size else []
        is_looped = len(wish) == e1000.OFFLOAD.size and wish[0] & e1000.LOOPED
        for one in found:
            if is_looped:
                self._come_back(one)
            elif len(one) <= self.longest:
                super().write(0, one)

    def _come_back(self, frame: bytes) -> None:
        with self._lock:
            if len(self.incoming) < MOST_WAITING:
                self._take_in([frame])
            else:
                self.counts["lost_received"] += 1
        self.wake()

    def part(self, frame: bytes, place: int, size: int) -> bytes:
        """See Port: maybe of a frame without its tag."""
        if place & e1000.UNTAGGED:
            frame, place = frame[: _TAG.start] + frame[_TAG.stop :], place & ~e1000.UNTAGGED
        return super().part(frame, place, size)

    def offer(self, frame: bytes) -> bytes:
        """See Port."""
        return e1000.OFFER.pack(len(frame), frame[:_ADDRESS], frame[_TAG])
