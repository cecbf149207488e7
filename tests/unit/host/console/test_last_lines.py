"""Beginning and end of what a port has printed, in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvmbox.host.console.last_lines import HEAD, KEPT, Tail, excerpt


@given(st.lists(st.tuples(st.sampled_from(b"abc"), st.integers(0, 2 * (HEAD + KEPT)))))
def test_both_ends_are_kept_whatever_the_pieces(pieces: list[tuple[int, int]]) -> None:
    tail = Tail()
    printed = b""
    for byte, count in pieces:
        tail.append(bytes((byte,)) * count)
        printed += bytes((byte,)) * count
    found = tail.excerpt
    assert found == excerpt(printed)
    assert len(found.head) + found.cut + len(found.tail) == len(printed)
    assert printed.startswith(found.head)
    assert printed.endswith(found.tail)
    assert len(found.head) == min(len(printed), HEAD)
    assert len(found.tail) == min(len(printed) - len(found.head), KEPT)
    assert printed.endswith(b"".join(tail.copy()))  # what the last line is looked for in
