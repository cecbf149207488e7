"""A process that is taken over opens windows as it likes: it stays within its grant, or is refused."""

from __future__ import annotations

from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.base.errors import ProtocolError
from kvmbox.contract.bulk_data import Flush, Window
from kvmbox.contract.model import Effect
from tests.support.window_disk import OWN, SECTOR
from tests.support.window_rig import CONTENT, PORT, WindowRig

MOST: Final = 1024  # what the grant has as `max_bytes`

OFFSETS: Final = st.one_of(
    st.integers(0, len(CONTENT)), st.sampled_from([len(CONTENT) - SECTOR, (1 << 63) - 1, (1 << 64) - 1])
)
EFFECTS: Final = st.one_of(
    st.builds(
        Window,
        st.integers(0, 3),
        st.sampled_from([0, 0, 0, 0, 1, 255]),
        OFFSETS,
        st.one_of(st.integers(0, MOST + 1), st.sampled_from([SECTOR, 1 << 40, (1 << 64) - 1])),
        st.integers(0, 1),
    ),
    st.builds(Flush, st.integers(0, 3), st.sampled_from([0, 0, 1])),
)
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["in", "out"]), st.sampled_from([2, 4]), st.integers(1, 600)),
        st.tuples(st.sampled_from(["errand", "waits"]), st.just(0), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=200)
@given(STEPS, st.lists(st.lists(EFFECTS, max_size=3), max_size=40))
def test_hostile_process_moves_bytes_within_its_grant_or_is_refused(
    steps: list[tuple[str, int, int]], answers: list[list[Effect]]
) -> None:
    rig = WindowRig()
    rig.model.take_effects = lambda: answers.pop(0) if answers else []  # type: ignore[method-assign]
    data, refused = bytes(range(256)) * 10, ""
    words = {OWN.to_bytes(4, "little")[:2], OWN.to_bytes(4, "little")}
    try:
        for what, size, count in steps:
            if what == "in":
                read = rig.ports.read_string(PORT, size, count)
                assert len(read) == size * count
                if rig.store.data == CONTENT:
                    for start in range(0, len(read), size):
                        word = read[start : start + size]
                        assert word in words or word in CONTENT
            elif what == "out":
                rig.ports.write_string(PORT, size, data[: size * count])
            elif what == "waits":
                rig.store.waits, rig.store.writes_now = not rig.store.waits, not rig.store.writes_now
            elif rig.host.errands:
                rig.do_errand()
    except ProtocolError as error:
        refused = str(error)
    assert not refused or "not granted" in refused or "follow-ups" in refused
    assert len(rig.store.data) == len(CONTENT)
    for call in rig.store.calls:
        verb, _, place = call.partition(" ")
        if verb != "flush":
            offset, size = map(int, place.split("+"))
            assert 0 <= size <= MOST
            assert offset + size <= len(CONTENT)
    assert rig.window.end <= MOST
