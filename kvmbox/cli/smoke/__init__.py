"""`kvmbox smoke`.

The command, sessions of it and what reporters print. Suites, verdicts and executors are `tools.smoke`.
"""
