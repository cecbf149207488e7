"""The names of feature bits: their places, other spellings, and what resembles a misspelling."""

from __future__ import annotations

import pytest

from kvmbox.kvm.cpuid.features import ALIASES, FEATURES, canonical, close_to, shown_in, where
from kvmbox.kvm.cpuid.leaves import Leaf

# Chosen by hand from the documents, the last bit of each row among them: a row that is off by one shows.
KNOWN = {
    "fpu": (1, 0, "edx", 0),
    "apic": (1, 0, "edx", 9),
    "sep": (1, 0, "edx", 11),
    "sse2": (1, 0, "edx", 26),
    "ht": (1, 0, "edx", 28),
    "pbe": (1, 0, "edx", 31),
    "pni": (1, 0, "ecx", 0),
    "cx16": (1, 0, "ecx", 13),
    "pcid": (1, 0, "ecx", 17),
    "x2apic": (1, 0, "ecx", 21),
    "tsc_deadline_timer": (1, 0, "ecx", 24),
    "hypervisor": (1, 0, "ecx", 31),
    "arat": (6, 0, "eax", 2),
    "fsgsbase": (7, 0, "ebx", 0),
    "smep": (7, 0, "ebx", 7),
    "smap": (7, 0, "ebx", 20),
    "avx512vl": (7, 0, "ebx", 31),
    "umip": (7, 0, "ecx", 2),
    "la57": (7, 0, "ecx", 16),
    "rdpid": (7, 0, "ecx", 22),
    "pks": (7, 0, "ecx", 31),
    "fsrm": (7, 0, "edx", 4),
    "serialize": (7, 0, "edx", 14),
    "ibt": (7, 0, "edx", 20),
    "amx_tile": (7, 0, "edx", 24),
    "spec_ctrl_ssbd": (7, 0, "edx", 31),
    "avx_vnni": (7, 1, "eax", 4),
    "lam": (7, 1, "eax", 26),
    "prefetchi": (7, 1, "edx", 14),
    "mcdt_no": (7, 2, "edx", 5),
    "xsaves": (0xD, 1, "eax", 3),
    "kvmclock": (0x4000_0001, 0, "eax", 3),
    "kvm_pv_unhalt": (0x4000_0001, 0, "eax", 7),
    "kvmclock_stable_bit": (0x4000_0001, 0, "eax", 24),
    "svm": (0x8000_0001, 0, "ecx", 2),
    "abm": (0x8000_0001, 0, "ecx", 5),
    "topoext": (0x8000_0001, 0, "ecx", 22),
    "mwaitx": (0x8000_0001, 0, "ecx", 29),
    "syscall": (0x8000_0001, 0, "edx", 11),
    "nx": (0x8000_0001, 0, "edx", 20),
    "lm": (0x8000_0001, 0, "edx", 29),
    "3dnow": (0x8000_0001, 0, "edx", 31),
    "invtsc": (0x8000_0007, 0, "edx", 8),
    "wbnoinvd": (0x8000_0008, 0, "ebx", 9),
    "amd_psfd": (0x8000_0008, 0, "ebx", 28),
    "nrip_save": (0x8000_000A, 0, "edx", 3),
    "vgif": (0x8000_000A, 0, "edx", 16),
    "autoibrs": (0x8000_0021, 0, "eax", 8),
}


@pytest.mark.parametrize("name", KNOWN)
def test_feature_is_at_the_place_that_the_documents_give(name: str) -> None:
    assert FEATURES[name] == KNOWN[name]


def test_no_two_features_share_a_bit() -> None:
    assert len(set(FEATURES.values())) == len(FEATURES)


def test_alias_leads_to_a_feature_and_is_none_itself() -> None:
    assert all(target in FEATURES and alias not in FEATURES for alias, target in ALIASES.items())


@pytest.mark.parametrize(
    ("spelt", "name"),
    [
        ("sse4.1", "sse4_1"),
        ("tsc-deadline", "tsc_deadline_timer"),
        ("SSE3", "pni"),
        ("avx512-bf16", "avx512_bf16"),
    ],
)
def test_spellings_of_qemu_and_of_documents_are_known(spelt: str, name: str) -> None:
    assert canonical(spelt) == name


def test_flags_of_proc_cpuinfo_are_known_but_for_those_of_linux_itself() -> None:
    # An EPYC's and a Xeon's. What is left out is made up by Linux, or about the host's own hardware.
    flags = (
        "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse"
        " sse2 ht syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm pni pclmulqdq ssse3 fma cx16 pcid sse4_1"
        " sse4_2 x2apic movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm cmp_legacy svm extapic"
        " cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw topoext perfctr_core ibrs ibpb stibp"
        " fsgsbase bmi1 avx2 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb sha_ni xsaveopt xsavec"
        " xgetbv1 xsaves clzero xsaveerptr wbnoinvd arat npt nrip_save umip vaes vpclmulqdq rdpid fsrm"
        " tsc_deadline_timer tsc_adjust avx512f avx512ifma avx512_vpopcntdq amx_tile amx_int8 avx512_fp16"
        " serialize tsxldtrk arch_capabilities"
    )
    assert [flag for flag in flags.split() if canonical(flag) not in FEATURES] == []


def test_misspelt_name_has_close_ones() -> None:
    assert close_to("popcount")[0] == "popcnt"
    assert "sse4_1" in close_to("sse4.3")
    assert close_to("zzzzzzzz") == []


def test_shown_in_lists_named_bits_only_in_the_order_of_the_table() -> None:
    leaves = [
        Leaf(1, 0, False, 0xFFFF_FFFF, 0xFFFF_FFFF, 1 << 16 | 1 << 13, 1 << 10 | 1),
        Leaf(7, 3, True, 1, 1, 1, 1),
    ]
    assert shown_in(leaves) == ["fpu", "cx16"]  # bits 16 of ECX and 10 of EDX have no name


def test_where_names_leaf_register_and_bit() -> None:
    assert where("avx2") == "leaf 0x7.0 EBX bit 5"
