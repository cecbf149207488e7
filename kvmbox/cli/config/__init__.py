"""`kvmbox config`: configuration files, their schemas, and the documents of --json.

Commands read the user's files and print by this; a suite's file and its rules are in `tools.smoke`.
"""
