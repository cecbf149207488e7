"""All that runs confined, but for the models: the spawner, the way into the jail, the serving loop.

It imports `contract`, `wire` and `base`, and loads the models by name. What chooses limits and filters is
`sandbox`, on the VMM's side.
"""
