"""Published memory: what a guest publishes to a device, which the VMM walks, checks, copies and grants."""
