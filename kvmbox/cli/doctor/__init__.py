"""`kvmbox doctor`.

The command with its checks of the host, each with a hint. What a run asks of the host is checked where it
runs.
"""
