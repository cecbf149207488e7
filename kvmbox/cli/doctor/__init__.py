"""`kvmbox doctor`."""
