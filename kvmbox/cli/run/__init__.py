"""`kvmbox run`.

The command, the quick parser before click, and what is written or repeated around a run. What a run does is
in `run`: this folder only asks, prints and exits.
"""
