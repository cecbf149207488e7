"""What a person is told of two processors that differ."""

from __future__ import annotations

import pytest

from kvmbox.kvm.cpuid.difference import difference
from kvmbox.kvm.cpuid.leaves import Leaf


def leaf(function: int, eax: int = 0, ebx: int = 0, ecx: int = 0, edx: int = 0) -> Leaf:
    return Leaf(function, 0, False, eax, ebx, ecx, edx)


def vendor(name: bytes) -> Leaf:
    ebx, edx, ecx = (int.from_bytes(name[at : at + 4], "little") for at in (0, 4, 8))
    return leaf(0, 1, ebx, ecx, edx)


SSE3, PCLMULQDQ, AVX = 1 << 0, 1 << 1, 1 << 28
INTEL, AMD = vendor(b"GenuineIntel"), vendor(b"AuthenticAMD")


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        ([INTEL, leaf(1, 5)], [AMD, leaf(1, 5)], "its vendor is AuthenticAMD, and not GenuineIntel"),
        ([INTEL, leaf(1, ecx=SSE3 | AVX)], [INTEL, leaf(1, ecx=SSE3)], "it lacks avx"),
        ([INTEL, leaf(1, ecx=SSE3)], [INTEL, leaf(1, ecx=SSE3 | AVX)], "it has also avx"),
        (
            [INTEL, leaf(1, ecx=AVX)],
            [INTEL, leaf(1, ecx=PCLMULQDQ)],
            "it lacks avx and has also pclmulqdq",
        ),
        ([INTEL, leaf(1, 5)], [INTEL, leaf(1, 6)], "its model is another one: CPUID leaf 0x1.0"),
        ([INTEL, leaf(2, 5)], [INTEL, leaf(2, 6)], "it shows something else: CPUID leaf 0x2.0"),
        ([INTEL, leaf(2, 5)], [INTEL], "it shows something else: CPUID leaf 0x2.0"),
        ([INTEL], [INTEL, leaf(2, 5)], "it has further leaves of CPUID"),
        ([], [INTEL], "its vendor is GenuineIntel, and not unknown"),
        ([INTEL], [INTEL], None),
    ],
)
def test_difference_is_the_most_telling_one(there: list[Leaf], here: list[Leaf], words: str | None) -> None:
    assert difference(there, here) == words


def test_difference_in_many_features_names_a_few() -> None:
    found = difference([INTEL, leaf(1, edx=0x0178_BFFF)], [INTEL, leaf(1)])
    assert found is not None
    assert found.startswith("it lacks ")
    assert found.count(", ") == 5
    assert " more" in found
