"""The connection to the models of one device process: requests, replies, effects, deadlines.

Everything that comes from a process is checked here, against what its device was granted. How bytes travel is
`remote.transport`.
"""
