"""The MC146818A real-time clock with its CMOS RAM.

`model` has the registers and what they are as a time of day; the time itself is a number that comes with the
request.
"""
