"""The trusted helper: host input and output, clocks and timers on behalf of device processes.

What touches the host for a run, without knowing devices or options. `remote` and `run` call it; nothing here
imports them.
"""
