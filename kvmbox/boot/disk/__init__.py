"""What is on a disk or CD image, what makes it bootable, and the way of CDs. Pure, but for the way.

It reads what the user gave, and imports nothing of the host. A guest's disk as a device is not here: that is
`host.disk` and the models.
"""
