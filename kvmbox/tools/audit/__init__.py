"""`kvmbox audit`: what runs in a device process tries to get out, and audit tells what stopped it.

It uses the sandbox of a run, as it is. The attacks are in a folder of their own, as they run confined.
"""
