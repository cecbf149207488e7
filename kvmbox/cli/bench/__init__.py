"""`kvmbox bench`.

The command and its output. What is measured, and how, is `tools.bench`.
"""
