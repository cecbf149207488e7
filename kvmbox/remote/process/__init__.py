"""Device processes and their spawner: start, watch, replace, end."""
