"""What the CMOS RAM of a PC tells the guest about memory: the bytes that set-up programs leave there.

The places are those of the PC/AT and of later BIOSes, filled in as QEMU's PC boards fill them:

    0x15, 0x16          base memory in KiB, at most 640
    0x17, 0x18          extended memory above 1 MiB in KiB, at most 65535 (64 MiB)
    0x30, 0x31          the same again, where a BIOS notes what its own memory test found
    0x34, 0x35          memory from 16 MiB up to the hole below 4 GiB, in units of 64 KiB, at most 65535
    0x5B, 0x5C, 0x5D    memory above 4 GiB, in units of 64 KiB

All are little-endian. They are plain RAM afterwards: nothing writes them again but the guest.
"""

from __future__ import annotations

from kvmbox.layout import KIB, LOW_MEMORY_END, MIB, MMIO_HOLE_START


def memory_size_bytes(memory_bytes: int) -> dict[int, int]:
    """The CMOS bytes (address → value) for a guest with `memory_bytes` of RAM."""
    below_4g = min(memory_bytes, MMIO_HOLE_START)
    base_kib = min(below_4g, LOW_MEMORY_END) // KIB
    extended_kib = min(max(below_4g - MIB, 0) // KIB, 0xFFFF)
    above_16m_units = min(max(below_4g - 16 * MIB, 0) // (64 * KIB), 0xFFFF)
    above_4g_units = min((memory_bytes - below_4g) // (64 * KIB), 0xFFFFFF)
    return {
        0x15: base_kib & 0xFF,
        0x16: base_kib >> 8,
        0x17: extended_kib & 0xFF,
        0x18: extended_kib >> 8,
        0x30: extended_kib & 0xFF,
        0x31: extended_kib >> 8,
        0x34: above_16m_units & 0xFF,
        0x35: above_16m_units >> 8,
        0x5B: above_4g_units & 0xFF,
        0x5C: (above_4g_units >> 8) & 0xFF,
        0x5D: above_4g_units >> 16,
    }
