"""The VGA on the board, and the display interface of Bochs."""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.contract.device_spec import AddressRange, Aperture, DeviceSpec, FrameBuffer
from kvmbox.contract.names import VBE, VGA


def vga() -> DeviceSpec:
    """The window is memory of the guest, until its registers make more of it than that."""
    return DeviceSpec(
        VGA,
        "vga",
        "vga_text",
        ports=tuple(
            AddressRange(first, count, offset=first - layout.VGA_FIRST_PORT)
            for first, count in (*layout.VGA_MONOCHROME_PORTS, *layout.VGA_PORTS)
        ),
        mmio=(AddressRange(layout.VGA_MEMORY, layout.VGA_MEMORY_SIZE, offset=layout.VGA_MEMORY),),
        grants=(Aperture(),),
        # Many kernels move the cursor at each character: four writes.
        coalesced=layout.VGA_CRTC_PORTS,
        on_demand=True,
    )


def vbe() -> DeviceSpec:
    """The display interface."""
    ports = AddressRange(layout.VBE_PORT, layout.VBE_PORT_COUNT)
    return DeviceSpec(
        VBE,
        "vga",
        "vbe_dispi",
        ports=(ports,),
        grants=(FrameBuffer(),),
        natural_sizes=frozenset({2, 4}),
        on_demand=True,
    )
