"""Whether there is PCI: `--pci`.

The option alone: the host bridge is a model, and what is on it is decided by the board.
"""
