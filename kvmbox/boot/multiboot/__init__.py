"""Multiboot 1: header, information, way.

What both versions share is here as well, for `boot.multiboot2` to import. How a kernel is entered is said by
each way, in its own folder.
"""
