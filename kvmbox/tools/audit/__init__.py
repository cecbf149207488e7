"""`kvmbox audit`: what runs in a device process tries to get out, and audit tells what stopped it."""
