"""The files behind disks, and the thread that moves their bytes."""
