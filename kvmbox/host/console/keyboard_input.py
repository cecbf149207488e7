"""The keyboard's input from the console: bytes of a terminal, a pipe or a program become changes of keys."""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.contract.names import KEYBOARD
from kvmbox.host.console.escape_keys import EscapeParser
from kvmbox.host.console.input_port import InputPort
from kvmbox.host.console.serial_backends import KeyboardSpec
from kvmbox.host.console.us_keyboard import KeyReader


class KeyboardPort(InputPort):
    """What is typed on the console waits in `pending`. The changes of keys that it makes wait behind those
    that a program has pressed, and what it does with the mouse behind what a program has done.
    """

    __slots__ = ("_changes", "_mouse", "_reader", "_say")

    def __init__(
        self,
        descriptor: int,
        spec: KeyboardSpec,
        *,
        escapes: EscapeParser | None = None,
        pending: bytearray | None = None,
        say: Callable[[str], None],
    ) -> None:
        """`descriptor` is -1 where other threads append to `pending`. They may append to
        the changes of `spec` always.
        """
        super().__init__(KEYBOARD, descriptor, escapes=escapes, pending=pending)
        self._changes = spec.keys.pending
        self._mouse = spec.mouse
        self._reader = KeyReader()
        self._say = say

    @property
    def can_send(self) -> bool:
        """See InputPort."""
        return bool(self.pending or self._changes) and not self.waiting_for_room

    def offer(self, size: int) -> bytes:
        """See InputPort. Bytes are translated when nothing else waits: what waits keeps its bound."""
        if not self._changes and self.pending:
            typed = bytes(self.pending)
            del self.pending[: len(typed)]
            had_dropped = self._reader.dropped
            self._changes += self._reader.feed(typed)
            if self._reader.events:
                self._mouse.send(bytes(self._reader.events))
                self._reader.events.clear()
            if self._reader.dropped and not had_dropped:
                self._say("the keyboard has no key for some of what is typed: that is dropped")
        return bytes(self._changes[:size])

    def accept(self, count: int) -> None:
        """See InputPort."""
        del self._changes[:count]


def on_console(
    spec: KeyboardSpec,
    stdin: int,
    escapes: EscapeParser | None,
    say: Callable[[str], None],
    notify: Callable[[int], None],
) -> KeyboardPort:
    """The port of a keyboard that the console types on. `notify` learns how much a program has sent there."""
    spec.keys.connect(notify)
    if spec.console is None:
        return KeyboardPort(stdin, spec, escapes=escapes, say=say)
    typed = spec.console.typed
    port = KeyboardPort(-1, spec, pending=typed.pending, say=say)
    typed.connect(notify)
    return port
