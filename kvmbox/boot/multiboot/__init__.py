"""Multiboot 1: header, information, way."""
