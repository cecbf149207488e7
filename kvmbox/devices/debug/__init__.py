"""Byte ports without time: the debug console, POST codes, debug-exit, shutdown, pvpanic."""
