"""One output for two ports that may print the same text, which is shown only once.

Many kernels write each line to COM1 and to the debug console. Both ports are shown on stdout, because a guest
may use only one of them. Without this module, a line on both ports would appear twice.

Rules
-----

- A byte is withheld only if the same bytes, from the beginning of its line, have been shown for the other
  port, in a complete line or in the open line of the other port. Each shown line accounts for one withheld
  line.
- If a withheld line turns out to be different, it is shown at once and in full. So no byte is dropped unless
  it was shown for the other port, and no line appears without its beginning.
- Lines are compared in order. If a line matches a later line of the other port, the lines in between can no
  longer match. A line without text matches only the next line.
- CR LF and LF both end a line.
- If a withheld line gets no byte for two ticks of the caller, it is shown. The exception is a line that
  equals the open line of the other port, which the user sees already. So a prompt appears even if an earlier
  line began with the same bytes.
- Memory is bounded: `HISTORY_LINES` lines of `LINE_LIMIT` bytes for each port. Longer lines are not compared.

A port is *free* if its bytes are shown at once. A port *follows* if its line is, so far, the beginning of a
line that was shown for the other port. In a common line, the port that is ahead is the free one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

HISTORY_LINES: Final = 64
LINE_LIMIT: Final = 1024
PATIENCE_TICKS: Final = 2

_LF: Final = 0x0A
_CR: Final = b"\r"


def _without_cr(text: bytes | bytearray) -> bytes | bytearray:
    """`text` without a CR that may belong to a line's end still to come."""
    return text[:-1] if text.endswith(_CR) else text


PortLines = tuple[str, bytes, tuple[bytes, ...], int, bool, bool]
"""Name of a port; its open line; the lines that the other one has not printed yet; shown, free, overlong."""


class _Port:
    __slots__ = ("free", "history", "overlong", "shown", "text", "ticks", "withheld")

    def __init__(self) -> None:
        self.history: deque[bytes] = deque(maxlen=HISTORY_LINES)
        """Complete lines that were shown for this port, and that the other one has not printed yet."""
        self.text = bytearray()
        """The open line, as far as it is `LINE_LIMIT` bytes at most."""
        self.shown = 0
        """How many bytes of `text` went out for this port, or stand before those in the other's line."""
        self.free = False
        self.overlong = False
        self.withheld = 0
        self.ticks = 0

    def end_line(self) -> None:
        self.text.clear()
        self.shown, self.free, self.overlong, self.ticks = 0, False, False, 0


class MirroredOutput:
    """Bytes of two ports, by name, for one `append`. Any thread may call; `append` is called under a lock."""

    def __init__(self, append: Callable[[bytes], None], names: tuple[str, str]) -> None:
        self._append = append
        self._ports = {name: _Port() for name in names}
        self._lock = threading.Lock()

    @property
    def withheld(self) -> dict[str, int]:
        """Bytes of each port that were not shown, as they were for the other."""
        return {name: port.withheld for name, port in self._ports.items()}

    def input(self, name: str) -> Callable[[bytes], None]:
        """Where the output of port `name` goes: a function of bytes."""
        port = self._ports[name]
        (other,) = (one for one in self._ports.values() if one is not port)

        text, lock, append = port.text, self._lock, self._append

        def take(data: bytes) -> None:
            with lock:
                # The common case: characters in the middle of a line that this port is ahead with.
                room = LINE_LIMIT - port.shown if port.free and port.shown else 0
                if 0 < len(data) <= room and b"\n" not in data:
                    text.extend(data)
                    port.shown += len(data)
                    append(data)
                    return
                out = self._take(port, other, data)
                if out:
                    append(out)

        return take

    def lines(self) -> list[PortLines]:
        """The present lines of both ports, for `go_on`."""
        with self._lock:
            return [
                (name, bytes(port.text), tuple(port.history), port.shown, port.free, port.overlong)
                for name, port in self._ports.items()
            ]

    def go_on(self, lines: Sequence[PortLines]) -> None:
        """Go on as another output did, if that had the same ports; nothing of its lines is shown again."""
        with self._lock:
            if [name for name, *_ in lines] != list(self._ports):
                return
            for name, text, history, shown, free, overlong in lines:
                port = self._ports[name]
                port.text[:] = text
                port.history.extend(history)
                port.shown, port.free, port.overlong = shown, free, overlong

    def tick(self) -> bool:
        """Some tens of milliseconds have passed: show what has been withheld for too long. Returns whether
        something still is, which the next tick may show.
        """
        return self._release(PATIENCE_TICKS)

    def finish(self) -> None:
        """The end: show what was withheld of lines that did not end."""
        self._release(0)

    def _release(self, patience: int) -> bool:
        waits = False
        one, two = self._ports.values()
        with self._lock:
            for port, other in ((one, two), (two, one)):
                if len(port.text) == port.shown or _stands_in_open_line(port.text, other):
                    continue
                port.ticks += 1
                if port.ticks > patience:
                    self._append(_show(port, port.shown))
                else:
                    waits = True
        return waits

    def _take(self, port: _Port, other: _Port, data: bytes) -> bytes:
        """What of `data` is to be shown, and what had been withheld until now."""
        out = b""
        position = 0
        while position < len(data):
            if port.free:
                end = data.find(_LF, position) + 1 or len(data)
                piece = data[position:end]
                out += piece
                _append_free(port, piece)
                position = end
            else:
                out += _follow(port, other, data[position])
                position += 1
        return out


def _append_free(port: _Port, piece: bytes) -> None:
    """Bytes of one line, which are shown as they came."""
    if not port.overlong:
        port.text += piece
        port.shown = len(port.text)
        if port.shown > LINE_LIMIT:
            port.overlong = True
            port.text.clear()
            port.shown = 0
    if piece[-1] == _LF:
        if not port.overlong:
            port.history.append(_normal(port.text))
        port.end_line()


def _follow(port: _Port, other: _Port, byte: int) -> bytes:
    """One more byte of a line that was, so far, the beginning of another one; what is to be shown now."""
    before = bytes(port.text)
    port.text.append(byte)
    port.withheld += 1
    port.ticks = 0
    if byte == _LF:
        if _take_from(other.history, port.text):
            port.end_line()
            return b""
    elif _may_become_one_of(port.text, other):
        return b""
    whole = other.free or other.shown == len(other.text)
    # A follower whose bytes are all on the screen has been overtaken: its line is common, too.
    if whole and not other.overlong and _without_cr(other.text) == _without_cr(before):
        # Ahead in the common line: what both have stands there already, and from here on this one leads.
        out = _show(port, min(len(before), len(other.text)))
        if other.text:
            other.free = False
    else:
        out = _show(port, port.shown)
    if byte == _LF:
        port.history.append(_normal(port.text))
        port.end_line()
    return out


def _show(port: _Port, start: int) -> bytes:
    """Show the open line from `start` on; from now on the port is free."""
    out = bytes(port.text[start:])
    port.withheld -= len(out)
    port.shown = len(port.text)
    port.free = True
    return out


def _normal(line: bytes | bytearray) -> bytes:
    return bytes(_without_cr(line[:-1])) + b"\n"


def _take_from(history: deque[bytes], text: bytearray) -> bool:
    """Whether the complete line `text` is one of `history`, which it then takes, with all before it."""
    line = _normal(text)
    if line not in history or (line == b"\n" and history[0] != line):
        return False
    while history.popleft() != line:
        pass
    return True


def _may_become_one_of(text: bytearray, other: _Port) -> bool:
    beginning = bytes(_without_cr(text))
    return any(line.startswith(beginning) for line in other.history) or _stands_in_open_line(text, other)


def _stands_in_open_line(text: bytearray, other: _Port) -> bool:
    return other.free and not other.overlong and other.text.startswith(_without_cr(text))
