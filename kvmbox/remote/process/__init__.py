"""Device processes and their spawner: start, watch, replace, end.

It talks to the spawner, and ends what does not answer. What the process does inside is `jail`; requests to a
model are `remote.channel`.
"""
