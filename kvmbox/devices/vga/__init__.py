"""A VGA with the display interface of Bochs.

Registers, the display interface and text memory. What people see of it is `parts.screen`, and the memory is
shared with the guest by `run.display`.
"""
