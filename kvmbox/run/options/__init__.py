"""What a user asks of a run: the table of options, their values, and the checked configuration.

One table for command line, programs, files and suites. How a value is used is not said here; values are
checked before anything starts.
"""
