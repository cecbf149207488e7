"""Packets of GDB's remote serial protocol (the GDB manual, appendix E.1: Overview).

Bytes in, events out; payloads in, bytes out. Nothing is read or written here. A client is anybody: whatever
bytes come, the parser gives events and keeps at most one packet of `PACKET_SIZE` bytes.

    $payload#checksum     a packet; the checksum has two hexadecimal digits
    +  -                  the last packet has arrived, or has to be sent again
    0x03                  stop the CPUs, outside of a packet

In a payload, "}" and the byte behind it stand for one byte: the second one with bit 5 inverted.
"""

from __future__ import annotations

from typing import Final

from kvmbox.base.value_classes import Value

PACKET_SIZE: Final = 0x4000
"""The longest packet, frame and escapes included: what PacketSize in qSupported promises."""

ESCAPE: Final = 0x7D
ESCAPE_BIT: Final = 0x20
_START: Final = 0x24  # $
_INTERRUPT: Final = 0x03
_NAK: Final = 0x2D
_SPECIAL: Final = frozenset(b"#$}*")
"""What a payload that is sent must not contain: the last one announces a run of equal bytes."""


class Packet(Value):
    """A packet whose checksum is right, without its escapes."""

    payload: bytes


class Damaged(Value):
    """A packet whose checksum is wrong, or that is none."""


class Interrupt(Value):
    """The client asks for a stop (Ctrl-C)."""


class SendAgain(Value):
    """The client did not get the last packet."""


class TooLong(Value):
    """A packet longer than `PACKET_SIZE`: nothing that follows can be understood."""


Event = Packet | Damaged | Interrupt | SendAgain | TooLong


def encode(payload: bytes) -> bytes:
    """The packet with this payload."""
    escaped = payload
    if not _SPECIAL.isdisjoint(payload):
        escaped = b"".join(
            bytes((ESCAPE, byte ^ ESCAPE_BIT)) if byte in _SPECIAL else bytes((byte,)) for byte in payload
        )
    return b"$%b#%02x" % (escaped, sum(escaped) & 0xFF)


def room_for(payload_size: int) -> int:
    """How many bytes of any value fit in a packet beside `payload_size` others, if each has to be escaped."""
    return (PACKET_SIZE - len("$#00") - payload_size) // 2


class Parser:
    """Splits what a client sends."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        """A packet that is not complete, from its "$" on."""

    def feed(self, data: bytes) -> list[Event]:
        """Take some bytes; returns what they complete, in order. Nothing follows a `TooLong`."""
        buffer, events, at = self._buffer, list[Event](), 0
        buffer += data
        while at < len(buffer):
            if buffer[at] == _START:
                # The checksum's two digits come behind the first "#", which is escaped wherever it is data.
                end = buffer.find(b"#", at) + len("#00")
                is_complete = len("#00") <= end <= len(buffer)
                if (end if is_complete else len(buffer)) - at > PACKET_SIZE:
                    events.append(TooLong())
                    at = len(buffer)
                    break
                if not is_complete:
                    break
                events.append(_packet(bytes(buffer[at:end])))
                at = end
                continue
            if buffer[at] == _INTERRUPT:
                events.append(Interrupt())
            elif buffer[at] == _NAK:
                events.append(SendAgain())
            # An ack asks for nothing, and other bytes mean nothing.
            at += 1
        del buffer[:at]
        return events


def _packet(frame: bytes) -> Packet | Damaged:
    """The packet in a frame from "$" to the checksum."""
    # A "$" within begins another packet: the one before it was cut off.
    raw, digits = frame[frame.rfind(b"$") + 1 : -3], frame[-2:]
    try:
        is_right = digits.isalnum() and int(digits, 16) == sum(raw) & 0xFF
    except ValueError:
        is_right = False
    return Packet(_unescape(raw)) if is_right else Damaged()


def _unescape(raw: bytes) -> bytes:
    if ESCAPE not in raw:
        return raw
    first, *rest = raw.split(b"}")
    found, index = [first], 0
    while index < len(rest):
        piece = rest[index]
        if piece:
            found.append(bytes((piece[0] ^ ESCAPE_BIT,)) + piece[1:])
        elif index + 1 < len(rest):  # "}}" is the escape of "]"
            index += 1
            found.append(bytes((ESCAPE ^ ESCAPE_BIT,)) + rest[index])
        index += 1
    return b"".join(found)
