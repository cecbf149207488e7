"""What the CMOS RAM of a PC tells of memory and disks: the bytes that set-up programs leave there.

The places are those of the PC/AT and of later BIOSes, filled in as QEMU's PC boards fill them:

    0x12                types of the first two disks, in bits 7 to 4 and 3 to 0: 15, "see 0x19 and 0x1A"
    0x15, 0x16          base memory in KiB, at most 640
    0x17, 0x18          extended memory above 1 MiB in KiB, at most 65535 (64 MiB)
    0x19, 0x1A          types of the first two disks: 47, "see 0x1B and 0x24"
    0x1B, 0x24          cylinders, heads, precompensation, control byte, landing zone, sectors of a track
    0x30, 0x31          extended memory again, where a BIOS notes what its own memory test found
    0x34, 0x35          memory from 16 MiB up to the hole below 4 GiB, in units of 64 KiB, at most 65535
    0x39                how the BIOS is to translate each of four disks, in 2 bits: 0 not at all, 1 by LBA
    0x5B, 0x5C, 0x5D    memory above 4 GiB, in units of 64 KiB

All are little-endian. They are plain RAM afterwards: nothing writes them again but the guest. The bytes of
disks are in the IBM PC AT Technical Reference, "Real-Time Clock/CMOS RAM Information"; 0x39 is of the BIOSes
of emulators.
"""

from __future__ import annotations

from struct import iter_unpack, pack

from kvmbox.base.layout import KIB, LOW_MEMORY_END, MIB, MMIO_HOLE_START


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


def disk_bytes(disks: bytes) -> dict[int, int]:
    """The CMOS bytes (address → value) for the disks at the four places of IDE.

    `disks` has the number of sectors of each, in 8 bytes, 0 for none. A cylinder has 16 heads of 63 sectors.
    """
    found: dict[int, int] = {}
    for place, (sectors,) in enumerate(iter_unpack("<Q", disks)):
        cylinders = min(max(sectors // (16 * 63), 2), 16383)
        if sectors and place < 2:
            found[0x12] = found.get(0x12, 0) | 0xF0 >> 4 * place
            found[0x19 + place] = 47
            # The whole disk without precompensation; no retries, more than 8 heads.
            table = pack("<HBHBHB", cylinders, 16, 0xFFFF, 0xC8, cylinders, 63)
            found |= dict(enumerate(table, 0x1B + 9 * place))
        if sectors and cylinders > 1024:
            found[0x39] = found.get(0x39, 0) | 1 << 2 * place
    return found
