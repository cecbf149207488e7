"""Tools on top of the public API: each is loaded by its command alone.

A tool imports the core, parts and itself; where one builds on another, `tools/layers.toml` says so. A tool
does not print: its command in `cli` does.
"""
