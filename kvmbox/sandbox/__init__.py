"""What each process may do: policy, and the kernel mechanisms that enforce it.

Layers, limits and filters are chosen and compiled here, in the VMM. What applies them runs confined: `jail`.
"""
