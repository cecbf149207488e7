"""Virtio devices that are no disks: `--rng`, `--virtio-console`."""
