"""The buses of a machine: which device answers at an address, and the proxy that asks its process."""
