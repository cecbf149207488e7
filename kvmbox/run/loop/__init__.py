"""The main thread of a run: its loop, periodic checks, end conditions, and pauses of all vCPUs.

It decides when a boot and a run end. Exits are handled by `run.vcpu`, and what to put together by
`run.machine`.
"""
