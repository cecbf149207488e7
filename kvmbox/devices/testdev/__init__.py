"""The test device of kvm-unit-tests.

Ports and memory that its tests expect, and nothing that another guest would use.
"""
