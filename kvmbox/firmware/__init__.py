"""What the firmware of a PC would have left in memory: memory map, BIOS data area and tables. Pure."""
