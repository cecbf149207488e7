"""The files behind disks, and the thread that moves their bytes.

It moves runs of sectors, with the limits and errors of files. What a sector is to the guest is a model's
business.
"""
