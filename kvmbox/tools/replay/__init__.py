"""Recordings: read, describe, check and replay.

Models run anew in this process, without a guest. Recordings are written by `parts.record`.
"""
