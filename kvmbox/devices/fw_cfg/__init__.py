"""QEMU's fw_cfg: items that the machine gives to its firmware and guest."""
