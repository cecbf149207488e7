"""Which instructions make the exits of a guest: a sample for --stats and --json.

It counts what the run loop offers. Profiles by time are `parts.profile`.
"""
