"""Virtio devices, and their transports over memory-mapped registers and over PCI.

A device per module, over what they have in common: registers, features, queues as their addresses. Rings are
walked by the VMM (`remote.published`), never here.
"""
