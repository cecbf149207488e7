"""PVH: a kernel entered in 32-bit protected mode at the address of a Xen note.

The note is found by `boot.elf`. The start information has modules and a memory map, and nothing of a protocol
beside.
"""
