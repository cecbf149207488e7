"""The code in the jail besides the models: the serving loop of a device process."""
