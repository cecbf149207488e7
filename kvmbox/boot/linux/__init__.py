"""Linux kernels: a bzImage or a vmlinux, their setup header and boot parameters."""
