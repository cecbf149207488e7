"""The names of CPUID's feature bits: as /proc/cpuinfo has them, and as QEMU does where it says another word.

A feature is a bit of one register of one leaf (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; Linux
arch/x86/include/asm/cpufeatures.h; Documentation/virt/kvm/x86/cpuid.rst for leaf 0x40000001). In a row of the
table, `-` is a bit without a name. A dot, a hyphen and an underscore are the same in a name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from kvmbox.kvm.cpuid.leaves import EAX, EBX, ECX, EDX, Leaf

Place: TypeAlias = tuple[int, int, str, int]
"""Where a feature is: leaf, subleaf, register, number of the bit. A plain tuple, for there are many."""

_ROWS: Final = (
    (
        (0x1, 0, EDX),
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx"
        " fxsr sse sse2 ss ht tm ia64 pbe",
    ),
    (
        (0x1, 0, ECX),
        "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca"
        " sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor",
    ),
    ((0x6, 0, EAX), "dtherm - arat"),
    (
        (0x7, 0, EBX),
        "fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm zero_fcs_fds"
        " mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt clwb intel_pt avx512pf"
        " avx512er avx512cd sha_ni avx512bw avx512vl",
    ),
    (
        (0x7, 0, ECX),
        "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni"
        " avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid key_locker bus_lock_detect cldemote -"
        " movdiri movdir64b enqcmd sgx_lc pks",
    ),
    (
        (0x7, 0, EDX),
        "- sgx_keys avx512_4vnniw avx512_4fmaps fsrm uintr - - avx512_vp2intersect srbds_ctrl md_clear"
        " rtm_always_abort - tsx_force_abort serialize hybrid_cpu tsxldtrk - pconfig arch_lbr ibt - amx_bf16"
        " avx512_fp16 amx_tile amx_int8 spec_ctrl intel_stibp flush_l1d arch_capabilities core_capability"
        " spec_ctrl_ssbd",
    ),
    (
        (0x7, 1, EAX),
        "sha512 sm3 sm4 rao_int avx_vnni avx512_bf16 lass cmpccxadd - - fzrm fsrs fsrc - - - - fred lkgs"
        " wrmsrns - amx_fp16 hreset avx_ifma - - lam",
    ),
    (
        (0x7, 1, EDX),
        "- - - - avx_vnni_int8 avx_ne_convert - - amx_complex - avx_vnni_int16 - - - prefetchi - - - - avx10",
    ),
    ((0x7, 2, EDX), "intel_psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no"),
    ((0xD, 1, EAX), "xsaveopt xsavec xgetbv1 xsaves xfd"),
    (
        (0x4000_0001, 0, EAX),
        "kvmclock_old kvm_nopiodelay kvm_mmu kvmclock kvm_asyncpf kvm_steal_time kvm_pv_eoi kvm_pv_unhalt"
        " - kvm_pv_tlb_flush kvm_asyncpf_vmexit kvm_pv_ipi kvm_poll_control kvm_pv_sched_yield"
        " kvm_asyncpf_int kvm_msi_ext_dest_id - - - - - - - - kvmclock_stable_bit",
    ),
    (
        (0x8000_0001, 0, ECX),
        "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit"
        " wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc"
        " mwaitx",
    ),
    (
        (0x8000_0001, 0, EDX),
        "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext"
        " 3dnow",
    ),
    ((0x8000_0007, 0, EDX), "- - - - - - - - invtsc"),
    (
        (0x8000_0008, 0, EBX),
        "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - ibpb - ibrs stibp - stibp_always_on - - - - -"
        " - amd_ssbd virt_ssbd amd_no_ssb - amd_psfd",
    ),
    (
        (0x8000_000A, 0, EDX),
        "npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists - - pausefilter -"
        " pfthreshold avic - v_vmsave_vmload vgif - - - - - - - - vnmi",
    ),
    (
        (0x8000_0021, 0, EAX),
        "no_nested_data_bp - lfence_rdtsc - - - null_sel_clr_base - autoibrs no_smm_ctl_msr",
    ),
)

ALIASES: Final = {
    # QEMU's words, and the documents' own.
    "sse3": "pni",
    "pclmul": "pclmulqdq",
    "ds": "dts",
    "clfsh": "clflush",
    "cmpxchg8b": "cx8",
    "cmpxchg16b": "cx16",
    "tsc_deadline": "tsc_deadline_timer",
    "lzcnt": "abm",
    "1gb_pages": "pdpe1gb",
    "xd": "nx",
    "avx512_ifma": "avx512ifma",
    "avx512_vbmi": "avx512vbmi",
    "user_shstk": "shstk",
    "cet_ss": "shstk",
    "cet_ibt": "ibt",
    "stibp_intel": "intel_stibp",
    "ssbd": "spec_ctrl_ssbd",
    "amd_ibpb": "ibpb",
    "amd_stibp": "stibp",
    "kvm_pv_clock": "kvmclock",
    "i64": "lm",
    "prefetchw": "3dnowprefetch",
    "nonstop_tsc": "invtsc",
}
"""Other names of the same bits."""

FEATURES: Final[dict[str, Place]] = {
    name: (*place, bit) for place, names in _ROWS for bit, name in enumerate(names.split()) if name != "-"
}
"""The features by name."""

REGISTERS: Final = tuple(place for place, _ in _ROWS)
"""Leaf, subleaf and register of all features: what else is set in there has no name yet."""


def canonical(name: str) -> str:
    """The name under which FEATURES has the feature, if it has it."""
    plain = name.lower().replace("-", "_").replace(".", "_")
    return ALIASES.get(plain, plain)


def close_to(name: str) -> list[str]:
    """Names that resemble one that is unknown, the best first."""
    from difflib import get_close_matches

    return get_close_matches(canonical(name), [*FEATURES, *ALIASES], n=3)


def where(name: str) -> str:
    """The place of a feature in words: "leaf 0x7.0 EBX bit 5"."""
    function, index, register, bit = FEATURES[name]
    return f"leaf {function:#x}.{index} {register.upper()} bit {bit}"


def shown_in(leaves: Iterable[Leaf]) -> list[str]:
    """The names of all features whose bit is set, in the order of the table."""
    words = {(leaf.function, leaf.index): leaf for leaf in leaves}
    found: list[str] = []
    for (function, index, register), names in _ROWS:
        leaf = words.get((function, index))
        if leaf is not None and (value := leaf.register(register)):
            found += [name for bit, name in enumerate(names.split()) if value >> bit & 1 and name != "-"]
    return found
