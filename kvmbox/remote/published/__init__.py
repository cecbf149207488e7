"""Published memory: what a guest publishes to a device, which the VMM walks, checks, copies and grants.

Each entry is fetched once and checked once, from the copy. Which registers publish is told by the device's
description; no chip is known here.
"""
