"""What each process may do, as `kvmbox policy` tells it.

It tells what `sandbox.policy` says, for people and in the languages of other systems. It decides nothing.
"""
