"""All that runs confined, but for the models: the spawner, the way into the jail, the serving loop."""
