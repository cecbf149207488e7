"""What drives a run from a program: `Machine`, its asyncio twin, calls, and the words of the monitor.

Programs, threads and the monitor come through here. It adds no rule of its own: a call waits for a pause of
the run and asks there.
"""
