"""The keyboard's input from the console: bytes of a terminal, a pipe or a program become changes of keys."""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.board import KEYBOARD
from kvmbox.host.input_port import InputPort
from kvmbox.host.keys import KeyReader
from kvmbox.host.terminal import EscapeParser


class KeyboardPort(InputPort):
    """What is typed on the console waits in `pending`. The changes of keys that it makes wait behind those
    that a program has pressed.
    """

    __slots__ = ("_changes", "_reader", "_say")

    def __init__(
        self,
        descriptor: int,
        changes: bytearray,
        *,
        escapes: EscapeParser | None = None,
        pending: bytearray | None = None,
        say: Callable[[str], None],
    ) -> None:
        """`descriptor` is -1 where other threads append to `pending`. They may append to `changes` always."""
        super().__init__(KEYBOARD, descriptor, escapes=escapes, pending=pending)
        self._changes = changes
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
            told = self._reader.dropped
            self._changes += self._reader.feed(typed)
            if self._reader.dropped and not told:
                self._say("the keyboard has no key for some of what is typed: that is dropped")
        return bytes(self._changes[:size])

    def accept(self, count: int) -> None:
        """See InputPort."""
        del self._changes[:count]
