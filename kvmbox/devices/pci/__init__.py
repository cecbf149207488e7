"""The PCI host bridge with the configuration space of every function, and the reset control register.

What a function has in its configuration space is declared with `contract.pci_function`. Its own registers are
in its folder.
"""
