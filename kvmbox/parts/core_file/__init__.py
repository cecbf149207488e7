"""--core: the state of a guest that has ended, as a core file for gdb.

It reads a stopped guest through the contract of parts, and writes ELF notes. What a report says of the end is
`parts.crash_report`.
"""
