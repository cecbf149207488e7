"""Multiboot 2: header tags, information tags, way."""
