"""The map of a qcow2 image, read in a jail. No device of the guest.

Only the tables of the format are read here: the VMM moves the sectors, by `host.disk`. Other formats get
their own folder.
"""
