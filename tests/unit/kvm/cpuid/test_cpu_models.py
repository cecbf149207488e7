"""`--cpu`: what is read, what is refused, and what becomes of the leaves that KVM claims."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base.errors import KvmError, UsageError
from kvmbox.kvm.cpuid.backend_limits import PVM
from kvmbox.kvm.cpuid.cpu_models import BASELINE, CpuModel, apply, features_of, parse_model, still_shown
from kvmbox.kvm.cpuid.dependencies import NEEDS, missing, with_dependents
from kvmbox.kvm.cpuid.features import FEATURES, shown_in
from kvmbox.kvm.cpuid.leaves import Leaf, find
from kvmbox.kvm.cpuid.pvm import usual

VECTOR = "sse sse2 pni ssse3 sse4_1 sse4_2 xsave avx avx2 avx512f avx512bw fma f16c xsaveopt xsavec"
CLAIMED = (
    set(BASELINE)
    | set(VECTOR.split())
    | {"popcnt", "cx16", "x2apic", "hypervisor", "kvmclock", "abm", "rdtscp"}
)


def leaves_with(names: set[str]) -> list[Leaf]:
    """The leaves of a made-up processor that has `names`, with an XSAVE area for AVX and AVX-512."""
    words: dict[tuple[int, int], dict[str, int]] = {
        (1, 0): {"eax": 0xA0671, "ebx": 0x0800},
        (7, 0): {"eax": 2},
    }
    words[(0x4000_0000, 0)] = {"eax": 0x4000_0001}
    for name in names:
        function, index, register, bit = FEATURES[name]
        registers = words.setdefault((function, index), {})
        registers[register] = registers.get(register, 0) | 1 << bit
    words[(0xD, 0)] = {"eax": 0xE7, "ebx": 0x240, "ecx": 0xA80}
    words[(0xD, 2)] = {"eax": 0x100, "ebx": 0x240}
    words[(0xD, 5)] = {"eax": 0x40, "ebx": 0x440}
    words[(0xD, 6)] = {"eax": 0x200, "ebx": 0x480}
    words[(0xD, 7)] = {"eax": 0x400, "ebx": 0x680}
    words[(0x5, 0)] = {"eax": 0x40, "ebx": 0x40}
    words[(0xA, 0)] = {"eax": 0x0730_0402}
    empty = {"eax": 0, "ebx": 0, "ecx": 0, "edx": 0}
    return [
        Leaf(function, index, index > 0, **(empty | registers))
        for (function, index), registers in words.items()
    ]


def shown(model: str, refused: set[str] = frozenset()) -> set[str]:  # type: ignore[assignment]
    return set(shown_in(apply(parse_model(model), leaves_with(CLAIMED), set(refused))))


# --- Reading -----------------------------------------------------------------------------------------------


def test_model_and_features_are_read() -> None:
    assert parse_model("host") == CpuModel("host", {})
    assert parse_model("none,+SSE3,-sse4.2") == CpuModel("none", {"pni": True, "sse4_2": False})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is none of host, max, none"),
        ("qemu64", "'qemu64' is none of host, max, none"),
        ("+avx", "'\\+avx' is none of host, max, none"),
        ("host,avx", "'avx' is not a feature with its sign"),
        ("host,", "'' is not a feature with its sign"),
        ("host,+", "'\\+' is not a feature with its sign"),
        ("host,-popcount", "there is no feature 'popcount'"),
        ("max,+avx,-avx", "adds avx and takes it away"),
        ("max,-ht", "ht cannot be chosen: it follows --cpus"),
        ("max,+osxsave", "osxsave cannot be chosen: it follows the guest's CR4"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_model(text)


def test_unknown_feature_has_close_ones_for_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        parse_model("host,-popcount")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("close to it: popcnt")


# --- Which features ----------------------------------------------------------------------------------------


def test_max_shows_what_is_claimed_and_host_less_what_does_not_run() -> None:
    assert shown("max", {"cx16"}) == CLAIMED
    assert shown("host", {"cx16"}) == CLAIMED - {"cx16"}


def test_host_shows_what_is_asked_for_though_it_does_not_run() -> None:
    assert shown("host,+cx16", {"cx16"}) == CLAIMED


def test_none_shows_the_baseline_and_what_is_added() -> None:
    assert shown("none") == BASELINE
    assert shown("none,+popcnt,+cx16") == BASELINE | {"popcnt", "cx16"}


def test_feature_that_kvm_does_not_claim_cannot_be_added() -> None:
    with pytest.raises(KvmError, match=r"does not support svm \(leaf 0x80000001.0 ECX bit 2\)"):
        shown("max,+svm")


def test_feature_goes_with_what_it_is_built_on() -> None:
    gone = CLAIMED - shown("max,-xsave")
    assert gone == {"xsave", "avx", "avx2", "avx512f", "avx512bw", "fma", "f16c", "xsaveopt", "xsavec"}


def test_feature_is_not_added_without_what_it_is_built_on() -> None:
    with pytest.raises(UsageError, match="avx is built on pni, ssse3, sse4_1, sse4_2, xsave") as caught:
        shown("none,+avx")
    hint = caught.value.hint
    assert hint is not None
    assert shown(hint.removeprefix("--cpu ")) == BASELINE | {
        "pni",
        "ssse3",
        "sse4_1",
        "sse4_2",
        "xsave",
        "avx",
    }


def test_claim_without_its_base_is_kvms_affair() -> None:
    claimed = {"gfni", "kvmclock", "avx2"}  # no SSE2, no hypervisor, no AVX
    assert features_of(parse_model("max"), claimed, set()) == claimed
    assert features_of(parse_model("none,+avx2"), claimed, set()) == {"avx2"}


def test_what_is_built_on_what_has_no_circle_and_knows_its_names() -> None:
    assert set(NEEDS) <= set(FEATURES)
    for name in NEEDS:
        assert set(NEEDS[name]) <= set(FEATURES)
        assert name not in missing(name, set(FEATURES))  # a circle would not even end
    assert with_dependents(set()) == set()


def test_baseline_hides_nothing_that_it_is_built_on_itself() -> None:
    assert not with_dependents(set(FEATURES) - BASELINE) & BASELINE


def test_limits_of_a_backend_are_features_of_no_baseline() -> None:
    assert set(PVM) <= set(FEATURES)
    assert not set(PVM) & BASELINE
    assert not with_dependents(set(PVM)) & BASELINE


# --- The leaves --------------------------------------------------------------------------------------------


def test_nothing_hidden_is_nothing_changed() -> None:
    claimed = leaves_with(CLAIMED)
    assert apply(parse_model("max"), claimed, set()) == claimed


def test_hidden_feature_clears_its_bit_and_no_other() -> None:
    claimed = leaves_with(CLAIMED)
    hidden = apply(parse_model("max,-cx16"), claimed, set())
    for before, after in zip(claimed, hidden, strict=True):
        assert after == (
            before.with_registers({"ecx": before.ecx & ~(1 << 13)}) if before.function == 1 else before
        )


def test_xsave_area_shrinks_with_the_features_whose_state_is_in_it() -> None:
    leaves = apply(parse_model("max,-avx512f"), leaves_with(CLAIMED), set())
    area = find(leaves, 0xD)
    assert area is not None
    assert (area.eax, area.ecx) == (0x7, 0x240 + 0x100)
    assert [leaf.index for leaf in leaves if leaf.function == 0xD and leaf.index > 1] == [2]
    # Without AVX only x87 and SSE are left: the legacy region and the header.
    area = find(apply(parse_model("max,-avx"), leaves_with(CLAIMED), set()), 0xD)
    assert area is not None
    assert (area.eax, area.ecx) == (0x3, 512 + 64)


def test_xsave_hidden_leaves_its_leaf_empty() -> None:
    leaves = apply(parse_model("max,-xsave"), leaves_with(CLAIMED), set())
    area = find(leaves, 0xD)
    assert area is not None
    assert (area.eax, area.ebx, area.ecx, area.edx) == (0, 0, 0, 0)


def test_hypervisor_hidden_takes_its_leaves_along() -> None:
    leaves = apply(parse_model("max,-hypervisor"), leaves_with(CLAIMED), set())
    assert not [leaf for leaf in leaves if leaf.function >> 28 == 4]


def test_none_clears_bits_without_a_name_and_keeps_what_is_no_feature() -> None:
    claimed = [
        leaf.with_registers({"ecx": leaf.ecx | 1 << 16, "edx": leaf.edx | 1 << 10})
        if leaf.function == 1
        else leaf
        for leaf in leaves_with(CLAIMED)
    ]
    claimed.append(Leaf(0x8000_0021, 0, False, 0xFF, 0xFF, 0xFF, 0xFF))
    leaves = apply(parse_model("none"), claimed, set())
    basic, counters, more = find(leaves, 1), find(leaves, 0xA), find(leaves, 0x8000_0021)
    structured, wait = find(leaves, 7), find(leaves, 5)
    assert basic is not None
    assert counters is not None
    assert more is not None
    assert structured is not None
    assert wait is not None
    assert (basic.eax, basic.ebx, basic.ecx) == (0xA0671, 0x0800, 0)
    assert not basic.edx & 1 << 10
    assert (structured.eax, structured.ebx, structured.ecx, structured.edx) == (2, 0, 0, 0)
    assert (counters.eax, more.eax, more.ebx, wait.eax) == (0, 0, 0, 0)


def test_still_shown_names_what_kvm_did_not_hide() -> None:
    wanted = leaves_with(CLAIMED - {"popcnt", "avx512f"})
    seen = leaves_with(CLAIMED | {"osxsave", "ht"})
    assert still_shown(wanted, seen) == ["popcnt", "avx512f"]


@given(st.sets(st.sampled_from(sorted(FEATURES))))
def test_masks_of_pvm_are_what_the_model_makes_of_its_limits(claimed: set[str]) -> None:
    leaves = leaves_with(claimed | {"hypervisor"})

    assert usual(leaves) == apply(parse_model("host"), leaves, set(PVM))


@pytest.mark.parametrize("name", sorted(with_dependents(set(PVM))))
def test_masks_of_pvm_hide_each_feature(name: str) -> None:
    assert name not in shown_in(usual(leaves_with({name})))
