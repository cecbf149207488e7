"""From an image file to guest memory and the first registers.

`read_image` takes the file, `load_image` puts it into a `GuestMemory` and returns the `BootPlan` that it
carried out, with the `CpuState` to start with. The package knows nothing of KVM.
"""

from kvmbox.boot.cpu_state import CpuState, DescriptorTable, Segment
from kvmbox.boot.image import GuestImage, Module, read_image, read_module
from kvmbox.boot.load import BootOptions, load_image
from kvmbox.boot.plan import BootPlan

__all__ = [
    "BootOptions",
    "BootPlan",
    "CpuState",
    "DescriptorTable",
    "GuestImage",
    "Module",
    "Segment",
    "load_image",
    "read_image",
    "read_module",
]
