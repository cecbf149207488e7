"""The VMM's side of a device process: requests, checks, grants, transports, survival."""
