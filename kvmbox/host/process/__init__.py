"""This process: signals, threads, children, the CPU that it is placed on.

It sets what belongs to the whole process, once. Children in a jail are `remote.process` and `jail`.
"""
