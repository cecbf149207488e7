"""The VMM's side of a device process: requests, checks, grants, transports, survival.

It imports `host`, `sandbox`, `jail` and below, and no chip by name. What a reply may cause is decided here;
what a run does with it is `run`.
"""
