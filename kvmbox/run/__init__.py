"""A run: its options (`options`), which command line, `Machine`, files and suites have in common."""
