"""The PCI host bridge with the configuration space of every function, and the reset control register."""
