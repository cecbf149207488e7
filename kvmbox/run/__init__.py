"""A run: its options (`option_table`), which command line, `Machine`, files and suites have in common."""
