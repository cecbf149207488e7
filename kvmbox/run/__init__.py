"""A run: its options (`option_table`), which command line, `Machine`, files and suites have in common.

It is the core, and imports no part: `part` and `parts` are the contract by which parts join a run. What only
one option needs is a part.
"""
