"""The filters of device processes, compiled ahead by tools/compile_policies.py; do not edit.

`sandbox.seccomp` uses one only if its table equals the policy's, so a stale one costs time and nothing else.
Each group of 16 digits is one struct sock_filter as it lies in memory: code (2 bytes), jt, jf, k (4 bytes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from kvmbox.sandbox.policy import Table


class CompiledFilter(NamedTuple):
    """BPF, and the table that it was made from."""

    table: Table
    bpf: bytes


FILTERS: Final = {
    "device": CompiledFilter(
        (
            (0, ((0, 3, 0xFFFFFFFF),)),
            (1, ((0, 3, 0xFFFFFFFF),)),
            (9, ((2, 3, 0xFFFFFFFFFFFFFFFF), (3, 34, 0xFFFFFFFFFFFFFFFF), (4, 4294967295, 0xFFFFFFFF))),
            (11, ()),
            (12, ()),
            (15, ()),
            (60, ()),
            (231, ()),
        ),
        bytes.fromhex(
            "2000000004000000 1500001f3e0000c0 2000000000000000 3500000100000040 1500001cffffffff "
            "1500010000000000 1500000501000000 2000000014000000 5400000000000000 1500001500000000 "
            "2000000010000000 1500141303000000 1500000d09000000 2000000024000000 1500001000000000 "
            "2000000020000000 1500000e03000000 200000002c000000 1500000c00000000 2000000028000000 "
            "1500000a22000000 2000000034000000 5400000000000000 1500000700000000 2000000030000000 "
            "15000605ffffffff 150005000b000000 150004000c000000 150003000f000000 150002003c000000 "
            "15000100e7000000 060000000000c07f 060000000000ff7f 0600000000000080"
        ),
    ),
    "device-pipes": CompiledFilter(
        (
            (0, ((0, 3, 0xFFFFFFFF),)),
            (1, ((0, 4, 0xFFFFFFFF),)),
            (9, ((2, 3, 0xFFFFFFFFFFFFFFFF), (3, 34, 0xFFFFFFFFFFFFFFFF), (4, 4294967295, 0xFFFFFFFF))),
            (11, ()),
            (12, ()),
            (15, ()),
            (60, ()),
            (231, ()),
        ),
        bytes.fromhex(
            "2000000004000000 150000243e0000c0 2000000000000000 3500000100000040 15000021ffffffff "
            "1500000500000000 2000000014000000 5400000000000000 1500001b00000000 2000000010000000 "
            "15001a1903000000 1500000501000000 2000000014000000 5400000000000000 1500001500000000 "
            "2000000010000000 1500141304000000 1500000d09000000 2000000024000000 1500001000000000 "
            "2000000020000000 1500000e03000000 200000002c000000 1500000c00000000 2000000028000000 "
            "1500000a22000000 2000000034000000 5400000000000000 1500000700000000 2000000030000000 "
            "15000605ffffffff 150005000b000000 150004000c000000 150003000f000000 150002003c000000 "
            "15000100e7000000 060000000000c07f 060000000000ff7f 0600000000000080"
        ),
    ),
}
"""Policy name → its filter."""
