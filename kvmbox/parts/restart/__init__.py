"""--on-device-crash restart: a lost device process is replaced, unseen by the guest.

It notes what a lost process has been asked, and asks a fresh one the same. Who counts as lost is
`remote.process`.
"""
