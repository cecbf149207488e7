"""Recordings of a machine's channels: `kvmbox run --record` writes, `kvmbox replay` and `trace` read.

It notes frames as they pass. Reading, checking and replaying a recording is `tools.replay`.
"""
