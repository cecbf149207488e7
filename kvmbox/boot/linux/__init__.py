"""Linux kernels: a bzImage or a vmlinux, their setup header and boot parameters.

It imports the rest of `boot`, `firmware` and below. The memory map comes from `firmware`, the ranges from the
plan; no other protocol's header is read here.
"""
