"""PVH: a kernel entered in 32-bit protected mode at the address of a Xen note."""
