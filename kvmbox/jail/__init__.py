"""The code in the jail besides the models: the serving loop of a device process.

A fork locks itself up and serves requests to a model. It imports `contract`, `wire`, `base` and the models by
name; what chooses limits and filters is `sandbox`, on the VMM's side.
"""
