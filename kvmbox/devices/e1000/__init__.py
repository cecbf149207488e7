"""The Intel 82540EM network interface, known as e1000.

`model` has the registers; the rings are read by the VMM, which gives them in runs that are checked. No
frame's wire is here: that is `host` and `parts.net`.
"""
