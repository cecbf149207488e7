"""What firmware tells of a machine, as plain facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kvmbox.base.value_classes import Value

Fields = Mapping[str, Any]
"""Fields of a platform that are known later than the others."""
NOTHING: Final[Fields] = {}


class Platform(Value):
    """A machine as its firmware describes it.

    `memory_size` is bytes of RAM; CPU i of `cpus` has the APIC id i; `serial_ports` are those that are
    present: COM1 to COM4, and "MMIO" for the memory-mapped one. `cpu_signature` and `cpu_features` are EAX
    and EDX of CPUID leaf 1, which MP and SMBIOS tables repeat; by default those of a P6 with FPU, CMPXCHG8B
    and local APIC. `virtio` has (address, interrupt line) of each virtio device over MMIO. `pci` has
    (device number, interrupt line) of each function of the PCI bus that interrupts, None without a bus.
    """

    memory_size: int
    cpus: int = 1
    serial_ports: tuple[str, ...] = ("COM1",)
    cpu_signature: int = 0x600
    cpu_features: int = 0x301
    virtio: tuple[tuple[int, int], ...] = ()
    pci: tuple[tuple[int, int], ...] | None = None

    def with_fields(self, fields: Fields) -> Platform:
        """The same, with other fields."""
        return Platform(**{**self.as_dict(), **fields}) if fields else self


class Further(Value):
    """Disks and CDs of the BIOS besides the image: how many sectors of 512, and of 2048 bytes, each has."""

    disks: tuple[int, ...] = ()
    cds: tuple[int, ...] = ()


NO_DRIVES: Final = Further()
