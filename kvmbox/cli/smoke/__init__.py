"""`kvmbox smoke`."""
