"""What the built-in BIOS calls: its disks, and the port on which it reports what it does not provide."""
