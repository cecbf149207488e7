"""Boot sectors: the built-in BIOS starts, and loads them from their disk.

The sector is loaded by the BIOS in the guest, which `guests/bios` has. What its disks are is `devices.bios`.
"""
