"""ELF executables, and the way of those that follow no protocol.

Readers copy what they need out of headers and check it: an image may be anything. Other ways read ELF files,
too, by these modules; what only one protocol has is in its folder.
"""
