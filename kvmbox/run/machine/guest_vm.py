"""One virtual machine for each boot.

A new VM with new interrupt controllers is the most reliable reset that KVM has.
"""

from __future__ import annotations

from typing import Protocol

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.kvm import uapi
from kvmbox.kvm.system import Kvm
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.kvm.vm import Vm
from kvmbox.run.machine.boot_source import BootSource
from kvmbox.run.machine.loop_implementations import ring_kind
from kvmbox.run.vcpu.coalesced_ring import CoalescedRing, OutputRoom
from kvmbox.run.vcpu.processors import Processors, apply_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.run.machine.device_set import Devices

VIDEO_SLOT = 16  # behind those of RAM and ROMs


class SavedState(Protocol):
    """The state of a virtual machine that was saved: see `start_state.Origin`."""

    def apply(self, kvm: Kvm, guest: GuestVm) -> None:
        """Bring a fresh machine to it. Raises StartError."""
        ...


class GuestVm:
    """One virtual machine from reset to reset: memory, interrupt controllers, vCPUs, a loaded guest.

    The first vCPU is the bootstrap processor. The others wait for INIT and a start-up IPI.
    """

    def __init__(
        self,
        kvm: Kvm,
        memory: GuestMemory,
        source: BootSource,
        *,
        cpu: str,
        cpus: int = 1,
        waits: bool = True,
        state: SavedState | None = None,
    ) -> None:
        """`cpu` is what `--cpu` says. `waits` says whether `close` waits until the VM is destroyed. With a
        `state`, the machine goes on as that says, and `memory` has it already.

        Raises StartError, KvmError and UsageError.
        """
        self._waits = waits
        self._coalesces = kvm.check_extension(uapi.KVM_CAP_COALESCED_PIO) > 0
        self.boot = source.load(memory)
        self.memory = memory
        self.vm: Vm = kvm.create_vm()
        try:
            self.vm.set_identity_map_address(layout.KVM_IDENTITY_MAP_ADDRESS)
            self.vm.set_tss_address(layout.KVM_TSS_ADDRESS)
            # Before the interrupt controllers: KVM then builds its routing once.
            self.vm.map_memory(memory.pieces)
            for slot, rom in enumerate(memory.roms, len(memory.pieces)):
                self.vm.set_user_memory_region(slot, rom.start, rom.size, rom.host_address, read_only=True)
            self.vm.map_memory(memory.video, VIDEO_SLOT)
            memory.show_video = lambda video: self.vm.map_memory(video, VIDEO_SLOT)
            self.vm.create_irqchip()
            self.vm.route_as_pc()
            if self.boot.after_bios:
                from kvmbox.run.machine.bios_chip_setup import initialize_pics

                initialize_pics(self.vm)
            processors = Processors(kvm, self.vm, cpus=cpus, cpu=cpu)
            self.vcpus: list[Vcpu] = processors.vcpus
            self.is_pvm = processors.is_pvm
            self.not_hidden = processors.not_hidden
            self.leaves = processors.leaves
            self.lines_are_set = state is not None
            """Whether the interrupt controllers have seen the edges of the lines that are high."""
            if state is None:
                apply_state(self.vcpus[0], self.boot.state)
            else:
                state.apply(kvm, self)
        except BaseException:
            self.vm.close()
            raise

    def coalesce(self, devices: Devices, room: OutputRoom) -> CoalescedRing | None:
        """Coalesce the writes that may be late, if KVM can do this: they do not exit, but go to the ring."""
        zones = devices.coalesced | devices.late_ports
        forbidden, devices.late_forbidden = devices.late_forbidden, ()
        if not self._coalesces or not zones:
            devices.late.attach(self.vm, None, forbidden)
            return None
        for port in devices.coalesced:
            self.vm.register_coalesced(port, 1, pio=True)
        # The ring belongs to the VM: KVM maps the same page behind each vCPU.
        vcpu, alone = self.vcpus[0], len(self.vcpus) == 1
        latches = zones.keys() & {port for device in devices.board for port in device.latches}
        ring = ring_kind()(
            vcpu.words64, vcpu.words32, vcpu.bytes, zones, room=room, latches=latches, carries=alone
        )
        devices.late.attach(self.vm, ring, forbidden)
        return ring

    def close(self) -> None:
        """Close the VM and its vCPUs; the memory stays."""
        self.vm.close(wait=self._waits)
