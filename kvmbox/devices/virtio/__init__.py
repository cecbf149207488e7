"""Virtio devices, and their transports over memory-mapped registers and over PCI."""
