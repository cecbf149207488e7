"""A server of the Remote Framebuffer protocol (RFC 6143), for one client at a time. No device of the guest.

Theory of operation
-------------------
The model has no registers. The VMM moves bytes between it and a client's socket, gives it pixels, and hears
what the client wants. So whatever a client sends is parsed here, in a jailed process without guest memory.

*Host input* is one message for each call: a byte that says what it is, and its content.

    CONNECT  width, height (2 bytes each)   a client has come; the screen has this size
    CLIENT   bytes                          what the client has sent, MOST_CLIENT at most
    UPDATE   count (2 bytes)                an update of so many rectangles follows
    RECT     x, y, width, height, pixels    one of them: 3 bytes a pixel, MOST_PIXELS at most
    RESIZE   width, height                  an update that only says that the size is another

*Host output* are messages, too, each with the length of its content (2 bytes) behind the first byte: SEND
(bytes for the client), KEY (down, keysym), POINTER (buttons, x, y), WANT (1: only what has changed),
CAN_RESIZE, CLOSE (the client breaks the protocol). Numbers are big endian, as in the protocol.

There is no authentication: the VMM lets nobody in but this host, or who may open the socket. Pixels are sent
raw. Texts of the client's clipboard are skipped. Nothing of a client is kept beyond MOST_KEPT bytes.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.contract.model import HostOutput, ModelBase, SnapshotError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CONNECT, CLIENT, UPDATE, RECT, RESIZE = b"NCURZ"
SEND, KEY, POINTER, WANT, CAN_RESIZE, CLOSE = b"SKPWRX"

MOST_CLIENT: Final = 512
MOST_PIXELS: Final = 900
MOST_KEPT: Final = 4096
MOST_ENCODINGS: Final = 1000
"""Of a client. So the longest message, and what is kept of one, has fewer bytes than MOST_KEPT."""

VERSION: Final = b"RFB 003.008\n"
NAME: Final = b"kvmbox"
RAW: Final = 0
DESKTOP_SIZE: Final = -223

# Phases of a connection.
NOBODY, VERSION_DUE, SECURITY_DUE, INIT_DUE, RUNNING = range(5)

_FORMAT: Final = Struct(">BBBBHHHBBB3x")
FORMAT: Final = _FORMAT.pack(32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
"""Of the server: 32 bits, little endian, 8 bits for each color: blue, green, red."""
_SIZE: Final = Struct(">HH")
_RECT: Final = Struct(">HHHH")
_RECT_HEADER: Final = Struct(">HHHHi")
_UPDATE_HEADER: Final = Struct(">BxH")
_SNAPSHOT: Final = Struct(">4sBBHHI16sH")
_MAGIC: Final = b"RFB\x01"

_LENGTHS: Final = {0: 20, 2: 4, 3: 10, 4: 8, 5: 6, 6: 8}
"""Of the messages of a client, by their type: without the encodings, and without the text."""


class RfbServer(ModelBase):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._power_on()

    def _power_on(self) -> None:
        self._phase = NOBODY
        self._minor = 8
        self._width = self._height = 1
        self._skip = 0  # bytes of a text
        self._format = FORMAT
        self._kept = b""

    # --- DeviceModel --------------------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel. There are no registers."""
        return (1 << 8 * size) - 1

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""

    def advance(self, now: int) -> None:
        """See DeviceModel. Time changes nothing."""

    def next_deadline(self) -> int | None:
        """See DeviceModel. Never."""
        return None

    def reset(self, now: int) -> None:
        """See DeviceModel. The client is not the guest's: it stays."""

    def receive(self, now: int, data: bytes) -> int:
        """See DeviceModel and the module."""
        if data:
            kind, content = data[0], data[1:]
            if kind == CONNECT and len(content) == _SIZE.size:
                self._power_on()
                self._phase = VERSION_DUE
                self._width, self._height = _SIZE.unpack(content)
                self._send(VERSION)
            elif self._phase != NOBODY:
                self._take(kind, content)
        return len(data)

    def _take(self, kind: int, content: bytes) -> None:
        if kind == CLIENT:
            self._kept += content
            while self._phase != NOBODY and self._parse():
                pass
        elif kind == UPDATE and len(content) == 2:
            self._send(_UPDATE_HEADER.pack(0, int.from_bytes(content, "big")))
        elif kind == RECT and len(content) >= _RECT.size:
            rect = _RECT.unpack_from(content)
            if 3 * rect[2] * rect[3] == len(content) - _RECT.size:
                self._send(_RECT_HEADER.pack(*rect, RAW) + self._pixels(content[_RECT.size :]))
        elif kind == RESIZE and len(content) == _SIZE.size:
            self._width, self._height = _SIZE.unpack(content)
            self._send(
                _UPDATE_HEADER.pack(0, 1) + _RECT_HEADER.pack(0, 0, *_SIZE.unpack(content), DESKTOP_SIZE)
            )

    # --- The client ---------------------------------------------------------------------------------------

    def _say(self, kind: int, content: bytes = b"") -> None:
        self._effects.append(HostOutput(bytes((kind,)) + len(content).to_bytes(2, "big") + content))

    def _send(self, data: bytes) -> None:
        self._say(SEND, data)

    def _close(self) -> None:
        self._power_on()
        self._say(CLOSE)

    def _next(self, size: int) -> bytes | None:
        """The next bytes of the client, if they are there."""
        if len(self._kept) < size:
            return None
        taken, self._kept = self._kept[:size], self._kept[size:]
        return taken

    def _parse(self) -> bool:
        """Take one message. Returns whether there may be another one."""
        if self._phase == RUNNING:
            return self._parse_message()
        if self._phase == VERSION_DUE:
            version = self._next(len(VERSION))
            if version is not None:
                self._take_version(version)
            return version is not None
        choice = self._next(1)
        if choice is None:
            return False
        if self._phase == INIT_DUE:
            self._phase = RUNNING
            size = _SIZE.pack(self._width, self._height)
            self._send(size + FORMAT + len(NAME).to_bytes(4, "big") + NAME)
        elif choice == b"\x01":
            self._phase = INIT_DUE
            if self._minor == 8:
                self._send(bytes(4))
        else:
            self._close()
        return True

    def _take_version(self, version: bytes) -> None:
        if version[:8] != VERSION[:8] or version[11:] != b"\n" or not version[8:11].isdigit():
            self._close()
            return
        self._minor = min(int(version[8:11]), 8)
        if self._minor >= 7:
            self._phase = SECURITY_DUE
            self._send(b"\x01\x01")
        else:
            self._phase = INIT_DUE
            self._send(b"\0\0\0\x01")

    def _parse_message(self) -> bool:
        if self._skip:
            gone = min(self._skip, len(self._kept))
            self._skip, self._kept = self._skip - gone, self._kept[gone:]
            return gone > 0
        if not self._kept:
            return False
        kind = self._kept[0]
        length = _LENGTHS.get(kind)
        if length is None:
            self._close()
            return False
        if kind == 2 and len(self._kept) >= 4:
            count = int.from_bytes(self._kept[2:4], "big")
            if count > MOST_ENCODINGS:
                self._close()
                return False
            length += 4 * count
        message = self._next(length)
        if message is None:
            return False
        self._do(kind, message)
        return True

    def _do(self, kind: int, message: bytes) -> None:
        if kind == 0:
            self._set_format(message[4:])
        elif kind == 2:
            wanted = [
                int.from_bytes(message[at : at + 4], "big", signed=True) for at in range(4, len(message), 4)
            ]
            if DESKTOP_SIZE in wanted:
                self._say(CAN_RESIZE)
        elif kind == 3:
            self._say(WANT, bytes((int(message[1] != 0),)))
        elif kind == 4:
            self._say(KEY, bytes((int(message[1] != 0),)) + message[4:8])
        elif kind == 5:
            self._say(POINTER, message[1:6])
        else:
            self._skip = int.from_bytes(message[4:8], "big")

    # --- Pixels -------------------------------------------------------------------------------------------

    def _set_format(self, wanted: bytes) -> None:
        bits, _, _, is_true, red, green, blue, *shifts = _FORMAT.unpack(wanted)
        maxima = red, green, blue
        fits = all(0 < most < 1 << 16 and shift < bits for most, shift in zip(maxima, shifts, strict=True))
        if bits not in (8, 16, 32) or not is_true or not fits:
            self._close()  # a palette of colors is not made for anybody
            return
        self._format = wanted[:13] + bytes(3)

    def _pixels(self, rgb: bytes) -> bytes:
        """Pixels in the client's format."""
        bits, _, is_big, _, *numbers = _FORMAT.unpack(self._format)
        maxima, shifts = numbers[:3], numbers[3:]
        size = bits // 8
        if size == 4 and maxima == [255, 255, 255] and all(shift % 8 == 0 for shift in shifts):
            made = bytearray(4 * (len(rgb) // 3))
            for color, shift in enumerate(shifts):
                made[3 - shift // 8 if is_big else shift // 8 :: 4] = rgb[color::3]
            return bytes(made)
        red, green, blue = (
            [level * most // 255 << shift for level in range(256)]
            for most, shift in zip(maxima, shifts, strict=True)
        )
        mask = (1 << bits) - 1
        return b"".join(
            ((red[rgb[at]] | green[rgb[at + 1]] | blue[rgb[at + 2]]) & mask).to_bytes(
                size, "big" if is_big else "little"
            )
            for at in range(0, len(rgb), 3)
        )

    # --- The state ----------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        state = _SNAPSHOT.pack(
            *(_MAGIC, self._phase, self._minor, self._width, self._height, self._skip, self._format),
            len(self._kept),
        )
        return state + self._kept

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        if len(state) < _SNAPSHOT.size:
            raise SnapshotError("not a snapshot of an RFB server")
        magic, phase, minor, width, height, skip, form, size = _SNAPSHOT.unpack_from(state)
        kept = state[_SNAPSHOT.size :]
        if magic != _MAGIC or phase > RUNNING or minor > 8 or size != len(kept) or size > MOST_KEPT:
            raise SnapshotError("not a state of an RFB server")
        copy = RfbServer()
        copy._set_format(form)
        if copy._effects:
            raise SnapshotError("no format of an RFB server")
        self._phase, self._minor, self._width, self._height = phase, minor, width, height
        self._skip, self._format, self._kept = skip, form, kept
        self._effects = []
