"""The Intel 8254 programmable interval timer.

`model` has the registers, the counters beside it count by guest time, and `board` places them. Lines go to
the IRQ controller of KVM, which is not here.
"""
