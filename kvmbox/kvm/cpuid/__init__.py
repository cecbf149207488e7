"""What the CPUID instruction tells the guest: leaves, topology, features by name, models. Pure."""
