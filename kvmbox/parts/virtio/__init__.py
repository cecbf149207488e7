"""Virtio devices that are no disks: `--rng`, `--virtio-console`.

Options and places: queues, models and their host sides are elsewhere.
"""
