"""What executes: the run loop of a vCPU, its state, routes of exits, coalesced writes."""
