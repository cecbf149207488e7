"""Guest time, the deadlines of devices, time-outs, and a host that is late.

Clocks of the host end here: others get guest time as a number. What happens at a deadline is for who asked.
"""
