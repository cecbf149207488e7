"""Firmware: a ROM image, entered at the reset vector.

A ROM brings its own way to boot: nothing of a guest's image is read, and what the board has is not decided
here.
"""
