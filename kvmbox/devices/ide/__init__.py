"""IDE channels with hard disks and CD-ROM drives.

The channel, its drives, and ATA and ATAPI commands. Sectors are asked for by effects: no file of the host is
here.
"""
