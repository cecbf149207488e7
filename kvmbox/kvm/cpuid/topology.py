"""The place of each vCPU: one package with `cpus` cores of one thread, whose APIC ids are their numbers.

Every leaf that tells of a topology says the same. A guest that finds two leaves apart believes one of them,
and which one differs from guest to guest. KVM passes on what the host CPU says that it was asked on, or zeros
(Documentation/virt/kvm/api.rst, KVM_GET_SUPPORTED_CPUID), so all of it is written here:

| leaf | says | source |
|---|---|---|
| 1 | EBX: APIC id, how many ids the package has; EDX.HTT: whether that number counts | SDM vol. 2, CPUID |
| 4 | Intel: EAX 25..14 ids that share the cache, 31..26 cores of the package | the same |
| 0xb, 0x1f | per level: shift to the next level's id, CPUs at this level, x2APIC id | SDM vol. 3, 10.9 |
| 0x80000001 | AMD: ECX.CmpLegacy: the number in leaf 1 is that of cores | AMD APM vol. 3, appendix E |
| 0x80000008 | AMD: ECX: cores less one, and the width of their ids | the same |
| 0x8000001d | AMD: EAX 25..14, as leaf 4 | the same |
| 0x8000001e | AMD: x2APIC id, core id, one thread a core, one node | the same |

The caches of levels 1 and 2 belong to a core, those above to all cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvmbox.kvm.cpuid.leaves import AMD_VENDORS, EAX, EBX, ECX, EDX, Leaf, find, highest, vendor

_HTT: Final = 1 << 28  # leaf 1 EDX
_CMP_LEGACY: Final = 1 << 1  # leaf 0x80000001 ECX
_TOPOEXT: Final = 1 << 22  # the same register

_THREADS: Final = 1  # level types of leaves 0xb and 0x1f, in ECX 15..8
_CORES: Final = 2
_LAST_PRIVATE_LEVEL: Final = 2  # of caches

_EXTENDED: Final = 0x8000_0000
_FIRST_OF_0X80000026: Final = 0x8000_0026


def id_bits(cpus: int) -> int:
    """How many bits the APIC ids of `cpus` CPUs take."""
    return (cpus - 1).bit_length()


def place(leaves: Sequence[Leaf], number: int, cpus: int) -> list[Leaf]:
    """`leaves` as vCPU `number` of `cpus` shows them. Nothing else than the topology is changed."""
    amd = vendor(leaves) in AMD_VENDORS
    placed = []
    for leaf in leaves:
        if leaf.function in (0xB, 0x1F, _FIRST_OF_0X80000026):
            continue
        change = _CHANGES.get(leaf.function)
        placed.append(leaf if change is None else change(leaf, number, cpus, amd))
    for function in (0xB, 0x1F):
        if highest(leaves, 0) >= function:
            placed += _levels(function, number, cpus)
    if highest(leaves, _EXTENDED) >= _FIRST_OF_0X80000026:
        # AMD's leaf of the same kind: an empty first level says that there is nothing to read.
        placed.append(Leaf(_FIRST_OF_0X80000026, 0, True, 0, 0, 0, number))
    extended = find(placed, 0x8000_0001)
    if extended is not None and not extended.ecx & _TOPOEXT:
        # Where the feature is not shown, its leaves have no meaning.
        placed = [leaf for leaf in placed if leaf.function not in (0x8000_001D, 0x8000_001E)]
    return placed


def _basic(leaf: Leaf, number: int, cpus: int, _amd: bool) -> Leaf:
    several = cpus > 1
    return leaf.with_registers(
        {
            EBX: leaf.ebx & 0x0000_FFFF | cpus << 16 | number << 24,
            EDX: leaf.edx & ~_HTT | (_HTT if several else 0),
        }
    )


def _cache(leaf: Leaf, _number: int, cpus: int, amd: bool) -> Leaf:
    if not leaf.eax & 0x1F:  # no more caches
        return leaf
    ids = 1 << id_bits(cpus)
    level = leaf.eax >> 5 & 0x7
    sharing = 1 if level <= _LAST_PRIVATE_LEVEL else ids
    eax = leaf.eax & 0x3FFF | sharing - 1 << 14
    if not amd:  # reserved in leaf 0x8000001d
        eax |= ids - 1 << 26
    return leaf.with_registers({EAX: eax})


def _levels(function: int, number: int, cpus: int) -> list[Leaf]:
    return [
        Leaf(function, 0, True, 0, 1, 0 | _THREADS << 8, number),
        Leaf(function, 1, True, id_bits(cpus), cpus, 1 | _CORES << 8, number),
        Leaf(function, 2, True, 0, 0, 2, number),
    ]


def _extended(leaf: Leaf, _number: int, cpus: int, amd: bool) -> Leaf:
    several = amd and cpus > 1
    return leaf.with_registers({ECX: leaf.ecx & ~_CMP_LEGACY | (_CMP_LEGACY if several else 0)})


def _sizes(leaf: Leaf, _number: int, cpus: int, amd: bool) -> Leaf:
    if not amd:
        return leaf
    return leaf.with_registers({ECX: leaf.ecx & 0xFFFF_0F00 | id_bits(cpus) << 12 | cpus - 1})


def _node(leaf: Leaf, number: int, _cpus: int, _amd: bool) -> Leaf:
    return leaf.with_registers({EAX: number, EBX: number, ECX: 0, EDX: 0})


_CHANGES: Final = {
    0x1: _basic,
    0x4: _cache,
    0x8000_0001: _extended,
    0x8000_0008: _sizes,
    0x8000_001D: _cache,
    0x8000_001E: _node,
}
