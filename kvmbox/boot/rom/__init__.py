"""Firmware: a ROM image, entered at the reset vector."""
