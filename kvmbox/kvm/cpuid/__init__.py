"""What the CPUID instruction tells the guest: leaves, topology, features by name, models. Pure.

Tables and functions of numbers, without a look at the host: who asks KVM or the CPU gives them what it found.
"""
