"""What runs inside of the jail besides the models: the serving loop of a device process."""
