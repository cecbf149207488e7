"""`kvmbox run`."""
