"""`kvmbox bench`."""
