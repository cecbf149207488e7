"""What a user asks of a run: the table of options, their values, and the checked configuration."""
