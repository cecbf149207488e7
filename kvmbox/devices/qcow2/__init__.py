"""The map of a qcow2 image, read in a jail. No device of the guest."""
