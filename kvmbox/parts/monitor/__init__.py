"""The monitor on the terminal: Ctrl-A C.

The line and its editor. What a word of it does is `run.api`, for other ways to say it as well.
"""
