"""Which instructions make the exits of a guest: a sample for --stats and --json."""
