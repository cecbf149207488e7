"""The payload of CHAINS: the chains that a walk of a queue has brought. Pure.

    offset  size  what
    0       4     handle
    4       4     length of the readable part
    8       4     length of the writable part
    12      1     n: length of the head
    13      n     the first bytes of the readable part, or what a descriptor of another ring says

These come one after the other, `MAX_CHAINS` at most. There is no address among them. The VMM, which is
trusted, writes them. What makes no sense is refused all the same, as every frame is.
"""

from __future__ import annotations

from struct import Struct

from kvmbox.contract.bulk_data import CHAIN_HEAD, Chain
from kvmbox.wire.protocol import FrameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

MAX_CHAINS: Final = 64
_CHAIN: Final = Struct("<IIIB")


def encode_chains(chains: Sequence[Chain]) -> bytes:
    """The payload. Raises FrameError for more than `MAX_CHAINS`."""
    if len(chains) > MAX_CHAINS:
        raise FrameError(f"{len(chains)} chains in a frame, at most {MAX_CHAINS} fit")
    return b"".join(
        [
            _CHAIN.pack(chain.handle, chain.readable, chain.writable, len(chain.head)) + chain.head
            for chain in chains
        ]
    )


def decode_chains(payload: bytes) -> list[Chain]:
    """The chains. FrameError for what `encode_chains` cannot have written."""
    chains: list[Chain] = []
    position = 0
    while position < len(payload):
        start = position + _CHAIN.size
        if start > len(payload) or len(chains) == MAX_CHAINS:
            raise FrameError(f"{len(payload)} bytes of chains end within one, or have too many")
        handle, readable, writable, length = _CHAIN.unpack_from(payload, position)
        position = start + length
        if length > CHAIN_HEAD or position > len(payload):
            raise FrameError(f"a head of {length} bytes, and {CHAIN_HEAD} at most fit")
        chains.append(Chain(handle, readable, writable, payload[start:position]))
    return chains
