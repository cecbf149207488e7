"""CPUID leaves as values, and the few questions that several modules ask about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from kvmbox.base.value_classes import Value

EAX: Final = "eax"
EBX: Final = "ebx"
ECX: Final = "ecx"
EDX: Final = "edx"

FIRST_HYPERVISOR: Final = 0x4000_0000
LAST_HYPERVISOR: Final = 0x4FFF_FFFF
"""The leaves that belong to the hypervisor (Intel SDM volume 2, CPUID: no processor has them)."""

AMD_VENDORS: Final = frozenset({b"AuthenticAMD", b"HygonGenuine"})


class Leaf(Value):
    """One leaf, or one subleaf where `indexed`: then CPUID looks at ECX, too."""

    function: int
    index: int
    indexed: bool
    eax: int
    ebx: int
    ecx: int
    edx: int

    def with_registers(self, values: Mapping[str, int]) -> Leaf:
        """The same leaf with other registers: `values` by EAX … EDX, cut to 32 bits."""
        words = {name: value & 0xFFFF_FFFF for name, value in values.items()}
        return Leaf(**{**self.as_dict(), **words})

    def register(self, name: str) -> int:
        """The register EAX, EBX, ECX or EDX."""
        value: int = getattr(self, name)
        return value


def find(leaves: Iterable[Leaf], function: int, index: int = 0) -> Leaf | None:
    """The leaf, or None if it is not there."""
    for leaf in leaves:
        if leaf.function == function and leaf.index == index:
            return leaf
    return None


def highest(leaves: Iterable[Leaf], first: int) -> int:
    """The highest leaf of the range that `first` begins, as the first leaf of that range says; 0 if none."""
    leaf = find(leaves, first)
    return 0 if leaf is None else leaf.eax


def vendor(leaves: Iterable[Leaf]) -> bytes:
    """The twelve letters of leaf 0, b"" if there is none."""
    leaf = find(leaves, 0)
    if leaf is None:
        return b""
    return b"".join(word.to_bytes(4, "little") for word in (leaf.ebx, leaf.edx, leaf.ecx))
