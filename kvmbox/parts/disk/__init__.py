"""--disk, --cdrom: disks of the guest, which the VMM reads and writes on behalf of device processes."""
