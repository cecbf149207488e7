"""The buses of a machine: which device answers at an address, and the proxy that asks its process.

It asks by address, and imports nothing of a model. What a channel checks of the answer is `remote.channel`.
"""
