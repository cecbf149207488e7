"""Flat 16-bit images, and the registers of a processor in real mode.

Images without a header, at an address that the user gives, and the state of a processor as BIOSes leave it. A
boot sector from a disk is `boot.bios`.
"""
