"""How words and frames reach a device process: socketpair, pipes, shared memory, or a direct call.

Bytes in order, and who waits for whom. What the bytes mean is `wire`, and whether they may mean it is
`remote.channel`.
"""
