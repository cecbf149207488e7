"""QEMU's fw_cfg: items that the machine gives to its firmware and guest.

`model` serves the items, `board` places the ports. Which items there are is the business of `firmware` and of
options.
"""
