"""What a KVM backend claims in CPUID, or shows, and does not run in kernel mode: measured, with the reason.

`kvmbox doctor --cpu` measures the same on the host at hand. A start does not: 60 instructions in a guest
take 0.1 s. What every x86-64 processor has is not in the table, even where it does not run: a kernel without
FPU or SSE2 in CPUID refuses to start, and one that sees them may do without them.
"""

from __future__ import annotations

from typing import Final

_REFUSED: Final = "KVM's instruction emulator refuses it: an internal error of KVM ends the guest"
_UNDEFINED: Final = "KVM's instruction emulator takes it for an undefined instruction"
_OTHER: Final = "KVM's instruction emulator runs another instruction, with another result"

PVM: Final[dict[str, str]] = {
    **dict.fromkeys(
        (  # noqa: SIM905 - forty lines otherwise
            "adx aes avx avx2 avx512f avx_vnni bmi2 clwb cx16 f16c fma fma4 gfni monitor mwaitx movdir64b "
            "movdiri pclmulqdq pni popcnt rdtscp sha_ni smap sse4_1 sse4_2 sse4a ssse3 tbm vaes vpclmulqdq "
            "xop xgetbv1 xsave xsavec xsaveopt xsaves"
        ).split(),
        _REFUSED,
    ),
    **dict.fromkeys(("hle", "rtm", "tsxldtrk"), _UNDEFINED),
    **dict.fromkeys(("abm", "bmi1"), _OTHER),
}
"""PVM emulates 64-bit code at privilege level 0, and all other code but that at level 3."""
