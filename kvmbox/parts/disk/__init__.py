"""--disk, --cdrom: disks of the guest, which the VMM reads and writes on behalf of device processes.

The option's values and their places on a board. The files are `host.disk`, and the models are in `devices`.
"""
