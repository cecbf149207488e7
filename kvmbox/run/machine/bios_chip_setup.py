"""What the built-in BIOS would have done to chips, for what is started without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmbox.firmware import builtin_bios
from kvmbox.kvm import uapi
from kvmbox.wire import protocol

if TYPE_CHECKING:
    from kvmbox.kvm.vm import Vm
    from kvmbox.remote.process.device_pool import DevicePool


def initialize_pics(vm: Vm) -> None:
    """Bring the 8259s into the state in which the built-in BIOS leaves them. Raises KvmError."""
    import kvmbox.remote.channel.free_running  # noqa: F401 - for `start_timer`, while modules come from the bundle

    chips = (uapi.KVM_IRQCHIP_PIC_MASTER, uapi.KVM_IRQCHIP_PIC_SLAVE)
    for chip, vector, mask in zip(chips, builtin_bios.FIRST_VECTORS, builtin_bios.MASKS, strict=True):
        state = vm.get_irqchip(chip)
        state.pic.irq_base, state.pic.imr, state.pic.init4 = vector, mask, 1
        vm.set_irqchip(state)


def start_timer(pool: DevicePool) -> None:
    """Start counter 0 of the PIT as the built-in BIOS does. Raises DeviceProcessError."""
    for device_type, index, device in pool.places():
        for register, data in device.runs.firmware if device.runs is not None else ():
            pool.channel(device_type).request(protocol.WRITE_RUN, device=index, offset=register, payload=data)
