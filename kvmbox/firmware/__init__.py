"""What the firmware of a PC would have left in memory: memory map, BIOS data area and tables. Pure.

It imports `contract` and `base`. It writes no memory and opens no file: it makes bytes, and `boot` and `run`
put them where they belong.
"""
