"""Message-signalled interrupts: a write to the memory of local APICs, made by the VMM."""

from __future__ import annotations

from contextlib import suppress
from ctypes import Structure, byref, c_uint8, c_uint32, sizeof
from typing import Final

from kvmbox.kvm import ioctl as io


class kvm_msi(Structure):
    """A message. KVM has no devices with ids here."""

    _fields_ = [
        ("address_lo", c_uint32),
        ("address_hi", c_uint32),
        ("data", c_uint32),
        ("flags", c_uint32),
        ("devid", c_uint32),
        ("pad", c_uint8 * 12),
    ]


KVM_SIGNAL_MSI: Final = io.IOW(0xA5, sizeof(kvm_msi))


def signal_msi(descriptor: int, address: int, data: int) -> None:
    """Deliver a message to the local APICs that `address`, below 4 GiB, names. `descriptor` is the virtual
    machine's. If there is no such APIC, or none takes it, it is lost.
    """
    with suppress(OSError):  # KVM's word for that
        io.ioctl(descriptor, KVM_SIGNAL_MSI, byref(kvm_msi(address, 0, data)))
