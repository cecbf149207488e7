"""What each process may do: policy, and the kernel mechanisms that enforce it."""
