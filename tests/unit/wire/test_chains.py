"""The payload of CHAINS: what is encoded is decoded, and nothing else is."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.contract.bulk_data import CHAIN_HEAD, Chain
from kvmbox.wire.chains import MAX_CHAINS, decode_chains, encode_chains
from kvmbox.wire.protocol import MAX_PAYLOAD, FrameError


def fields(chains: list[Chain]) -> list[tuple[int, int, int, bytes]]:
    return [(one.handle, one.readable, one.writable, one.head) for one in chains]


numbers = st.integers(0, (1 << 32) - 1)
some_chains = st.lists(
    st.builds(
        lambda handle, readable, writable, head: Chain(handle, readable, writable, head[:readable]),
        *(numbers, numbers, numbers, st.binary(max_size=CHAIN_HEAD)),
    ),
    max_size=MAX_CHAINS,
)


@given(some_chains)
def test_chains_come_back_as_they_were(chains: list[Chain]) -> None:
    assert fields(decode_chains(encode_chains(chains))) == fields(chains)


def test_most_chains_fit_in_a_frame_and_one_more_is_refused() -> None:
    chain = Chain(1, 32, 0, bytes(CHAIN_HEAD))
    payload = encode_chains([chain] * MAX_CHAINS)

    assert len(payload) <= MAX_PAYLOAD
    with pytest.raises(FrameError):
        encode_chains([chain] * (MAX_CHAINS + 1))
    with pytest.raises(FrameError):
        decode_chains(payload + payload[: len(payload) // MAX_CHAINS])


@pytest.mark.parametrize(
    "payload",
    [
        b"\0",
        struct.pack("<IIIB", 1, 40, 0, 33) + bytes(33),
        struct.pack("<IIIB", 1, 40, 0, 32) + bytes(31),
        struct.pack("<IIIB", 1, 0, 0, 0) + bytes(12),
    ],
)
def test_payload_that_makes_no_sense_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError):
        decode_chains(payload)


@given(st.binary(max_size=200))
def test_bytes_are_refused_or_are_what_they_decode_to(payload: bytes) -> None:
    try:
        chains = decode_chains(payload)
    except FrameError:
        return
    assert encode_chains(chains) == payload
