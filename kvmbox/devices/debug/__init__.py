"""Byte ports without time: the debug console, POST codes, debug-exit, shutdown, pvpanic.

A device with a clock or with memory has a folder by itself. What a port's value means for a run is
`run.loop`.
"""
