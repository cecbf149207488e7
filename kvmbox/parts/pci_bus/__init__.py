"""Whether there is PCI: `--pci`."""
