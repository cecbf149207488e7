"""Profiles of guests: where the CPUs of a guest were, as stacks that were counted.

`samples` collects addresses while the guest runs, `naming` gives them names at the end, `formats` writes and
reads files, and `hottest` is the table of `kvmbox profile`. All of it is pure.
"""
