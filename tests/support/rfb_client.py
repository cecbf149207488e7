"""A client of the Remote Framebuffer protocol for tests: it keeps what it is shown."""

from __future__ import annotations

import socket
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Final, Self

from tests.support.patience import patience

_RECT: Final = Struct(">HHHHi")
DESKTOP_SIZE: Final = -223


class RfbClient:
    """Connected, and past the handshake of version 3.8. Pixels are 4 bytes: blue, green, red, 0."""

    def __init__(self, place: Path | tuple[str, int], *, resizes: bool = True) -> None:
        is_path = isinstance(place, Path)
        self.socket = socket.socket(socket.AF_UNIX if is_path else socket.AF_INET)
        self.socket.settimeout(patience(20.0))
        self.socket.connect(str(place) if isinstance(place, Path) else place)
        self.greeting = self.take(12)
        self.send(self.greeting)
        assert self.take(2) == b"\x01\x01"
        self.send(b"\x01")
        assert self.take(4) == bytes(4)
        self.send(b"\x01")
        self.width, self.height = self.numbers(2)
        self.format = self.take(16)
        self.name = self.take(int.from_bytes(self.take(4), "big"))
        self.rows: list[bytearray] = []
        self._clear()
        if resizes:
            wanted = (0).to_bytes(4, "big") + DESKTOP_SIZE.to_bytes(4, "big", signed=True)
            self.send(b"\x02\0\0\x02" + wanted)

    def _clear(self) -> None:
        self.rows = [bytearray(4 * self.width) for _ in range(self.height)]

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def take(self, size: int) -> bytes:
        taken = bytearray()
        while len(taken) < size:
            piece = self.socket.recv(size - len(taken))
            if not piece:
                raise EOFError(f"{size} bytes were to come, and {bytes(taken)!r} came")
            taken += piece
        return bytes(taken)

    @property
    def is_turned_away(self) -> bool:
        """Whether the connection ends, and nothing comes before."""
        try:
            return not self.socket.recv(1)
        except ConnectionError:
            return True

    def numbers(self, count: int) -> tuple[int, ...]:
        data = self.take(2 * count)
        return tuple(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))

    def update(self, *, incremental: bool = False) -> int:
        """Ask for an update, and take it. Returns how many pixels came."""
        self.send(bytes((3, int(incremental))) + bytes(8))
        assert self.take(2)[0] == 0
        (count,) = self.numbers(1)
        pixels = 0
        for _ in range(count):
            x, y, width, height, encoding = _RECT.unpack(self.take(_RECT.size))
            if encoding == DESKTOP_SIZE:
                self.width, self.height = width, height
                self._clear()
                continue
            pixels += width * height
            for row in range(y, y + height):
                self.rows[row][4 * x : 4 * (x + width)] = self.take(4 * width)
        return pixels

    def key(self, keysym: int, *, down: bool) -> None:
        self.send(bytes((4, int(down), 0, 0)) + keysym.to_bytes(4, "big"))

    def point(self, buttons: int, x: int, y: int) -> None:
        self.send(bytes((5, buttons)) + x.to_bytes(2, "big") + y.to_bytes(2, "big"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
