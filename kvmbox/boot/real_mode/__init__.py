"""Flat 16-bit images, and the registers of a processor in real mode."""
