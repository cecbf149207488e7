"""A guest that moves sectors of the first IDE disk all over the place, for `--boot real`."""

from __future__ import annotations

from typing import Final

from kvmbox.base import layout
from tests.support.real_mode import DEBUGCON, SHUTDOWN, out

SHOWN: Final = 8
"""How many bytes of each sector the guest prints."""
STEP: Final = 128
"""Between two sectors that it reads: as many clusters of a qcow2 image are asked for at a time."""

DATA, CONTROL = layout.IDE_CHANNELS[0][:2]
COUNT, LOW, MIDDLE, HIGH, DEVICE, COMMAND = range(DATA + 2, DATA + 8)
READ, WRITE, FLUSH = 0x20, 0x30, 0xE7
BUFFER: Final = 0x8000


def _word(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _out_al(port: int) -> bytes:
    return b"\xba" + _word(port) + b"\xee"  # mov dx,port; out dx,al


def _wait(bit: int, *, is_set: bool) -> bytes:
    """Until BSY is clear and the bit is as wanted: in al,dx; test al,BSY; jnz; test al,bit; jz or jnz."""
    return (
        b"\xba" + _word(COMMAND) + b"\xec\xa8\x80\x75\xfb\xa8" + bytes((bit, 0x74 if is_set else 0x75, 0xF7))
    )


def _command(code: int) -> bytes:
    return out(COMMAND, code)


def guest(count: int, *, writes: bool = False) -> bytes:
    """Read sectors 0, STEP, 2 * STEP, …, `count` of them, up to 512, and print the first bytes of each.

    With `writes`, each is also written to the sector behind it, and flushed.
    """
    assert count <= 512
    start = b"\x31\xdb\x31\xc0\x8e\xd8\x8e\xc0\xfc"  # xor bx,bx; xor ax,ax; mov ds,ax; mov es,ax; cld

    def place(skip: int) -> bytes:
        return (
            out(DEVICE, 0xE0)
            + out(COUNT, 1)
            + (b"\x89\xd8\xc1\xe0\x07\x04" + bytes((skip,)))  # mov ax,bx; shl ax,7; add al,skip
            + _out_al(LOW)
            + b"\x89\xd8\xd1\xe8"  # mov ax,bx; shr ax,1
            + _out_al(MIDDLE)
            + out(HIGH, 0)
        )

    body = place(0) + _command(READ) + _wait(0x08, is_set=True)
    body += b"\xbf" + _word(BUFFER) + b"\xb9" + _word(256) + b"\xba" + _word(DATA) + b"\xf3\x6d"  # rep insw
    body += b"\xbe" + _word(BUFFER) + b"\xb9" + _word(SHOWN) + b"\xba" + _word(DEBUGCON) + b"\xf3\x6e"
    if writes:
        body += place(1) + _command(WRITE) + _wait(0x08, is_set=True)
        body += b"\xbe" + _word(BUFFER) + b"\xb9" + _word(256) + b"\xba" + _word(DATA) + b"\xf3\x6f"
        body += _wait(0x08, is_set=False) + _command(FLUSH) + _wait(0x08, is_set=False)
    body += b"\x43\x81\xfb" + _word(count)  # inc bx; cmp bx,count
    body += b"\x0f\x85" + _word((-len(body) - 4) & 0xFFFF)  # jne
    return start + body + SHUTDOWN


def label(number: int) -> bytes:
    """What the guest prints of the sector that it reads as that number."""
    return b"%07d\n" % number


def content(count: int) -> bytes:
    """A disk for the guest, whose sectors are all different."""
    disk = bytearray(count * STEP * 512)
    for number in range(count):
        place = number * STEP * 512
        disk[place : place + 512] = label(number) * 64
    return bytes(disk)


def copied(disk: bytes) -> bytes:
    """The disk as the guest leaves it that writes."""
    changed = bytearray(disk)
    for place in range(0, len(disk), STEP * 512):
        changed[place + 512 : place + 1024] = disk[place : place + 512]
    return bytes(changed)
