"""The end of what a port has printed, in bounded memory."""

from __future__ import annotations

from kvmbox.host.tail import KEPT, Tail


def test_end_is_kept_whatever_the_pieces() -> None:
    tail = Tail()
    for piece in (b"a" * KEPT, b"b", b"", b"c" * 10):
        tail.append(piece)
    assert tail.copy() == (b"a" * (KEPT - 11) + b"b" + b"c" * 10,)
    tail.append(b"d" * (3 * KEPT))
    assert tail.copy() == (b"d" * KEPT,)
