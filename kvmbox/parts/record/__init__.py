"""Recordings of a machine's channels: `kvmbox run --record` writes, `kvmbox replay` and `trace` read."""
