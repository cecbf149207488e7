"""The monitor on the terminal: Ctrl-A C."""
