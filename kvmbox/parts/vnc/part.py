"""--vnc: the screen of the guest for a VNC client, whose keys and pointer are the guest's.

The protocol is spoken by a jailed process without guest memory (`devices.rfb.model`), whose model comes to
it as text, as a device of a program does. This part moves bytes between it and the client's socket, gives it
what has changed of the screen, and types what it says. So the process, and whoever takes it over, has no more
than a client has: it can show anything to the client, and press keys.

What is sent is bounded: pixels go as the client reads them, one update at a time. A pointer that moves faster
than the guest's mouse reports is added up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from kvmbox import devices
from kvmbox.contract.names import VNC
from kvmbox.devices.ps2.keyboard import RELEASED
from kvmbox.devices.rfb import model as rfb
from kvmbox.devices.rfb.board import vnc_server
from kvmbox.host.console import mouse_events
from kvmbox.host.files.atomic_file import TemporaryFile
from kvmbox.host.sockets.client_link import Link
from kvmbox.host.sockets.endpoint import Endpoint
from kvmbox.parts.vnc.keysyms import change_of
from kvmbox.run.loop.vcpu_pause import Visitor
from kvmbox.run.part import Opening, Part, Standing
from kvmbox.wire import protocol

if TYPE_CHECKING:
    import select

    from kvmbox.host.console.serial_backends import KeyboardSpec

BAND: Final = 16
"""Rows that are compared, and sent, together."""
MOST_UNSENT: Final = 1 << 18
"""Bytes that wait for the client before the next pixels are sent."""
MOST_PENDING: Final = 64
"""Bytes of movements that wait for the guest's mouse before further ones are added up."""
MOST_TYPED: Final = 1024
"""Bytes that wait for the guest's keyboard, or its mouse, before further keys and clicks are lost."""
MOST_RECTS: Final = 256
"""Pieces of the screen that are sent before something else has its turn."""
_BUTTONS: Final = ((1, "left"), (2, "middle"), (4, "right"))
_WHEEL: Final = ((8, 1), (16, -1))

Frame = tuple[int, int, bytes]
"""Width, height, and 3 bytes a pixel."""


class Vnc(Part, Visitor):
    """One client at a time. Belongs to the main loop's thread."""

    accepts = True

    def __init__(self, vnc: Endpoint) -> None:
        self._endpoint = vnc
        self._link: Link | None = None
        self._end: Callable[[], None] = lambda: None
        self._machine: Standing
        self._size = (1, 1)  # as the client knows it
        self._shown: Frame | None = None
        self._can_resize = False
        self._wanted: int | None = None  # 1: what has changed, 0: everything
        self._rects: deque[bytes] = deque()
        self._pointer: tuple[int, int, int] | None = None  # x, y and buttons that the guest knows
        self._held: set[int] = set()  # the numbers of the keys that are down

    def equip(self, opening: Opening) -> None:
        """See `Part`."""
        source = (Path(devices.__file__).with_name("rfb") / "model.py").read_bytes()
        opening.board.append(vnc_server(source))
        opening.stores[VNC] = cast(Any, self)  # whose `hear` gets the output

    def open(self, opening: Opening) -> None:
        """See `Part`."""
        opening.prepare_pictures()
        self._link = Link(self._endpoint, None, "--vnc")
        if self._endpoint.path is not None:
            _, self._end = opening.caller.committer([TemporaryFile(self._endpoint.path)])
        if self._endpoint.port:
            opening.say(f"--vnc {self._endpoint}: every user of this host can connect, look and type")

    def attach(self, machine: Standing) -> None:
        """See `Part`."""
        self._machine = machine
        machine.loop.standstill.admit(self)

    def close(self) -> None:
        """See `Part`."""
        if self._link is not None:
            self._link.close()
        self._end()

    # --- The client ---------------------------------------------------------------------------------------

    def watch(self, poll: select.poll) -> None:
        """See `Visitor`."""
        assert self._link is not None
        self._link.watch(poll)

    def handle(self, descriptor: int) -> bool:
        """See `Visitor`. Raises DeviceProcessError."""
        link = self._link
        assert link is not None
        if not link.is_mine(descriptor):
            return False
        was_there = link.has_client
        data = link.handle()
        if data is None:
            self._drop()
        elif not was_there and link.has_client:
            self._begin()
        else:
            for at in range(0, len(data), rfb.MOST_CLIENT):
                if link.has_client:
                    self._ask(rfb.CLIENT, data[at : at + rfb.MOST_CLIENT])
        self._pump()
        return True

    def _begin(self) -> None:
        self._forget()
        width, height, _ = self._look()
        self._size = width, height
        self._ask(rfb.CONNECT, self._packed(width, height))

    def _forget(self) -> None:
        self._shown, self._can_resize, self._wanted, self._pointer = None, False, None, None
        self._rects.clear()

    def _drop(self, why: str = "") -> None:
        assert self._link is not None
        # Whoever held a button or a key is gone.
        if self._pointer is not None:
            self._point(0, *self._pointer[:2])
        self._keyboard.keys.send(bytes(key | RELEASED for key in self._held))
        self._held.clear()
        self._link.drop()
        self._forget()
        if why:
            self._say(why)

    def _say(self, line: str) -> None:
        self._machine.say(line)

    @staticmethod
    def _packed(*numbers: int) -> bytes:
        return b"".join(number.to_bytes(2, "big") for number in numbers)

    def _ask(self, kind: int, content: bytes) -> None:
        """Tell the process. Raises DeviceProcessError."""
        pool = self._machine.devices.pool
        member, index = next((name, index) for name, index, device in pool.places() if device.name == VNC)
        data = bytes((kind,)) + content
        pool.channel(member).request(protocol.RECEIVE, device=index, payload=data, limit=len(data))

    def hear(self, data: bytes) -> None:
        """What the process says: hostile bytes, messages of which each kind has its length."""
        assert self._link is not None
        while data and self._link.has_client:
            size = int.from_bytes(data[1:3], "big")
            kind, content, data = data[0], data[3 : 3 + size], data[3 + size :]
            self._do(kind, content if len(content) == size else b"")

    def _do(self, kind: int, content: bytes) -> None:
        """One message."""
        assert self._link is not None
        match kind, len(content):
            case (rfb.SEND, _):
                why = self._link.send(content)
                if why is not None:
                    self._drop(why)
            case (rfb.KEY, 5):
                self._press(int.from_bytes(content[1:], "big"), down=content[0] != 0)
            case (rfb.POINTER, 5):
                x, y = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:], "big")
                self._point(content[0], x, y)
            case (rfb.WANT, 1):
                self._wanted = content[0] & (1 if self._wanted is None else self._wanted)
            case (rfb.CAN_RESIZE, 0):
                self._can_resize = True
            case _:
                self._drop("the client of --vnc breaks the protocol, and is turned away")

    @property
    def _keyboard(self) -> KeyboardSpec:
        keyboard = self._machine.config.keyboard
        assert keyboard is not None
        return keyboard

    def _press(self, keysym: int, *, down: bool) -> None:
        """Press or release a key. The release of one that is down for the guest is never lost."""
        change = change_of(keysym, down=down)
        if not change:
            return
        key = change[0] & ~RELEASED
        if len(self._keyboard.keys.pending) < MOST_TYPED or (not down and key in self._held):
            self._keyboard.keys.send(change)
            (self._held.add if down else self._held.discard)(key)

    def _point(self, buttons: int, x: int, y: int) -> None:
        old_x, old_y, held = self._pointer or (x, y, 0)
        mouse = self._keyboard.mouse
        if len(mouse.pending) > (MOST_PENDING if held == buttons else MOST_TYPED):
            return  # the next one tells of this movement, too
        most = mouse_events.FARTHEST
        dx, dy = (max(-most, min(distance, most)) for distance in (x - old_x, y - old_y))
        events = mouse_events.moved(dx, dy)
        for bit, name in _BUTTONS:
            if (buttons ^ held) & bit:
                events += mouse_events.pressed(name) if buttons & bit else mouse_events.released(name)
        for bit, notches in _WHEEL:
            if buttons & ~held & bit:
                events += mouse_events.wheeled(notches)
        self._pointer = x, y, buttons
        if events:
            mouse.send(events)

    # --- The screen ---------------------------------------------------------------------------------------

    def slice(self) -> None:
        """See `Visitor`: once in a while, look at the screen for a client that waits."""
        if self._wanted is not None and not self._rects:
            self._update()
        self._pump()

    def _look(self) -> Frame:
        """What is on the screen. Raises DeviceProcessError."""
        picture = self._machine.part("screen").picture()
        return picture.width, picture.height, picture.rgb

    def _update(self) -> None:
        frame = self._look()
        width, height, _ = frame
        if (width, height) != self._size and self._can_resize:
            self._size, self._shown, self._wanted = (width, height), None, None
            self._ask(rfb.RESIZE, self._packed(width, height))
            return
        frame = _fitted(frame, self._size)
        rects = list(_rects(frame, self._shown if self._wanted else None))
        if rects:
            self._shown, self._wanted = frame, None
            self._rects.extend(rects)
            self._ask(rfb.UPDATE, self._packed(len(rects)))

    def _pump(self) -> None:
        link = self._link
        assert link is not None
        for _ in range(MOST_RECTS):
            if not (self._rects and link.has_client and link.unsent < MOST_UNSENT):
                break
            self._ask(rfb.RECT, self._rects.popleft())


def _fitted(frame: Frame, size: tuple[int, int]) -> Frame:
    """The frame as a client sees it whose screen has another size: cut, or with black beside it."""
    width, height, rgb = frame
    if (width, height) == size:
        return frame
    line = 3 * size[0]
    lines = [
        rgb[3 * width * row :][: 3 * width][:line].ljust(line, b"\0") for row in range(min(height, size[1]))
    ]
    return *size, b"".join(lines).ljust(line * size[1], b"\0")


def _rects(frame: Frame, shown: Frame | None) -> Iterator[bytes]:
    """What differs, as contents of RECT: bands, in pieces of what one message holds."""
    width, height, rgb = frame
    line = 3 * width
    for top in range(0, height, BAND):
        bottom = min(top + BAND, height)
        band = slice(line * top, line * bottom)
        if shown is not None and shown[:2] == frame[:2] and shown[2][band] == rgb[band]:
            continue
        rows = max(1, rfb.MOST_PIXELS // width)
        columns = min(width, rfb.MOST_PIXELS)
        for y in range(top, bottom, rows):
            count = min(rows, bottom - y)
            for x in range(0, width, columns):
                wide = min(columns, width - x)
                pixels = b"".join(
                    rgb[line * row + 3 * x : line * row + 3 * (x + wide)] for row in range(y, y + count)
                )
                yield b"".join(number.to_bytes(2, "big") for number in (x, y, wide, count)) + pixels


PART = Vnc
