"""How words and frames reach a device process: socketpair, pipes, shared memory, or a direct call."""
