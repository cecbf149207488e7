"""The way of flat 16-bit images: any bytes, put at one address and entered there in real mode.

There is no boot area and no BIOS: all of memory but the image reads as zero, the vector table too. No image
asks for this way by its content: it has to be chosen.
"""

from __future__ import annotations

from kvmbox.boot.entry_state import real_mode_state
from kvmbox.boot.flat import plan_flat
from kvmbox.boot.image import GuestImage
from kvmbox.boot.plan import BootContext, BootPlan, Offer, Refusal
from kvmbox.errors import UsageError


class Real:
    """See the module."""

    name: str = "real"

    def examine(self, image: GuestImage) -> Offer | Refusal:
        """See Way."""
        return Refusal("a flat 16-bit image is booted only where --boot real asks for it")

    def plan(self, image: GuestImage, context: BootContext) -> BootPlan:
        """See Way."""
        if context.all_modules:
            raise UsageError(
                "--module has no meaning with --mode real", hint="modules are for ELF and Multiboot kernels"
            )
        if context.command_line is not None:
            raise UsageError(
                "--append has no meaning with --mode real", hint="a command line is for ELF and Multiboot"
            )
        segment, stack = plan_flat(image, context.load_address, context.memory)
        state = real_mode_state(segment.address, stack)
        return BootPlan(self.name, state, segment.address, (segment,), has_firmware=False)
