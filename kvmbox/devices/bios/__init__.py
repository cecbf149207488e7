"""What the built-in BIOS calls: its disks, and the port on which it reports what it does not provide.

Their ports belong to kvmbox, no data sheet has them. The BIOS itself is code of the guest: `guests/bios`.
"""
