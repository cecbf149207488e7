"""Which feature means nothing without which other one, and which leaves belong to a feature.

A guest that is shown AVX without XSAVE cannot switch AVX on, and may crash in the attempt. So whoever hides a
feature hides what is built on it (Intel SDM volume 1, chapters 13 and 14; AMD APM volume 3, appendix D).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from kvmbox.kvm.cpuid.features import FEATURES
from kvmbox.kvm.cpuid.leaves import EAX, ECX, Leaf

_BUILT_ON: Final = {
    "mmx": "mmxext 3dnow",
    "3dnow": "3dnowext",
    "fxsr": "sse fxsr_opt",
    "sse": "sse2",
    "sse2": "pni aes pclmulqdq gfni sha_ni",
    "pni": "ssse3 sse4a",
    "ssse3": "sse4_1",
    "sse4_1": "sse4_2",
    "sse4_2": "avx",
    "xsave": "avx xsaveopt xsavec xgetbv1 xsaves xfd pku mpx amx_tile osxsave",
    "xsaves": "shstk",
    "avx": "avx2 fma f16c xop fma4 vaes vpclmulqdq avx_vnni avx_ifma avx_ne_convert avx_vnni_int8"
    " avx_vnni_int16 sha512 sm3 sm4 avx10",
    "avx2": "avx512f",
    "avx512f": " ".join(name for name in FEATURES if name.startswith("avx512") and name != "avx512f"),
    "amx_tile": "amx_bf16 amx_int8 amx_fp16 amx_complex",
    "pku": "ospke",
    "pae": "lm",
    "lm": "cx16 lahf_lm la57 lam pcid fsgsbase",
    "apic": "x2apic tsc_deadline_timer arat extapic",
    "tsc": "rdtscp tsc_deadline_timer tsc_adjust invtsc",
    "svm": "npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists pausefilter"
    " pfthreshold avic v_vmsave_vmload vgif vnmi",
    "hypervisor": " ".join(name for name in FEATURES if name.startswith("kvm")),
}

NEEDS: Final[dict[str, list[str]]] = {}
"""The features that each one is built on, where there are any."""

for _base, _built in _BUILT_ON.items():
    for _name in _built.split():
        NEEDS.setdefault(_name, []).append(_base)

LEAF_OF: Final = {
    0x5: "monitor",
    0xD: "xsave",
    0x12: "sgx",
    0x14: "intel_pt",
    0x1D: "amx_tile",
    0x1E: "amx_tile",
    0x24: "avx10",
    0x8000_000A: "svm",
}
"""The feature that each of these leaves describes: without it, all of the leaf is zero."""

_COMPONENTS: Final = {2: "avx", 3: "mpx", 4: "mpx", 5: "avx512f", 6: "avx512f", 7: "avx512f", 9: "pku"} | {
    17: "amx_tile",
    18: "amx_tile",
}
"""Bits of XCR0 (SDM volume 1, 13.1); bits 0 and 1 are x87 and SSE."""

_SUPERVISOR: Final = {11: "shstk", 12: "shstk"}
"""Bits of IA32_XSS, in ECX of subleaf 1."""

_LEGACY_SIZE: Final = 512 + 64  # of the XSAVE area: the legacy region and the header
_FIRST_COMPONENT: Final = 2


def missing(name: str, hidden: set[str]) -> list[str]:
    """Those of `hidden` that `name` is built on, directly or not, the lowest first."""
    found: list[str] = []
    for base in NEEDS.get(name, ()):
        found += [lower for lower in missing(base, hidden) if lower not in found]
        if base in hidden and base not in found:
            found.append(base)
    return found


def with_dependents(hidden: set[str]) -> set[str]:
    """`hidden`, and everything that is built on one of them."""
    return hidden | {name for name in NEEDS if missing(name, hidden)}


def fit_xsave(leaves: Sequence[Leaf], hidden: set[str]) -> list[Leaf]:
    """Leaf 0xd without the state of `hidden` features, and with the size of the rest.

    EBX of subleaf 0 is the size for what XCR0 has now: KVM computes that.
    """
    area = {leaf.index: leaf for leaf in leaves if leaf.function == 0xD}
    gone = {bit for bit, name in (_COMPONENTS | _SUPERVISOR).items() if name in hidden}
    if not gone or 0 not in area or not area[0].eax:
        return list(leaves)
    mask = ~sum(1 << bit for bit in gone)
    fitted = []
    for leaf in leaves:
        if leaf.function != 0xD:
            fitted.append(leaf)
        elif leaf.index == 0:
            eax = leaf.eax & mask
            fitted.append(leaf.with_registers({EAX: eax, ECX: _size(area, eax)}))
        elif leaf.index == 1:
            fitted.append(leaf.with_registers({ECX: leaf.ecx & mask}))
        elif leaf.index not in gone:
            fitted.append(leaf)
    return fitted


def _size(area: Mapping[int, Leaf], components: int) -> int:
    """The size in bytes of the XSAVE area in its standard form."""
    ends = [_LEGACY_SIZE]
    for index, leaf in area.items():
        if index >= _FIRST_COMPONENT and components >> index & 1:
            ends.append(leaf.ebx + leaf.eax)  # offset and size
    return max(ends)
