"""What firmware tells of a machine, as plain facts."""

from __future__ import annotations

from kvmbox.lean import Value


class Platform(Value):
    """A machine as its firmware describes it.

    `memory_size` is bytes of RAM; CPU i of `cpus` has the APIC id i; `serial_ports` are those of COM1 to COM4
    that are present.
    """

    memory_size: int
    cpus: int = 1
    serial_ports: tuple[str, ...] = ("COM1",)
