"""The High Precision Event Timers.

`model` counts by the guest time that it is given. Host time, and the timer behind a deadline, are
`host.time`.
"""
