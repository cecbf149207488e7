"""Device processes and their spawner: started, replaced, named when they fail, ended."""
