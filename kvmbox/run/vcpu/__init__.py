"""What executes: the run loop of a vCPU, its state, routes of exits, coalesced writes.

One thread for each vCPU: KVM_RUN, and a call for each exit. What ends a run, and all waits for others, are
`run.loop`.
"""
