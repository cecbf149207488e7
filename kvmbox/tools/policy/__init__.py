"""What each process may do, as `kvmbox policy` tells it."""
