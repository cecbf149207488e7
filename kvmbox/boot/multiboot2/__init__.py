"""Multiboot 2: header tags, information tags, way.

The tags of the second version alone. What both versions share is in `boot.multiboot`.
"""
