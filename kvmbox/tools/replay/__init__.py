"""Recordings: read, describe, check and replay."""
