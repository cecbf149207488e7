"""The attacks, by what they are after. All of it runs in device processes: lean, raw system calls only.

An attack is a function of what audit gives it; it returns its evidence, or raises `Stopped` at the first
system call that fails. It calls nothing but the system calls that it is about: under a filter the first
forbidden one is the last.
"""
