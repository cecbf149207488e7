"""A virtual machine: memory slots, interrupt controllers and lines, eventfds, coalesced zones.

Set-up order that KVM wants: memory and the TSS and identity-map addresses, then `create_irqchip`, then
vCPUs. (Slots made after the irqchip are right too, but on some hosts cost milliseconds.)
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from contextlib import ExitStack
from ctypes import byref, c_uint64
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Protocol, Self

from kvmbox.base.errors import KvmError
from kvmbox.kvm import ioctl as io
from kvmbox.kvm import uapi
from kvmbox.kvm.background_close import abandon
from kvmbox.kvm.irq_routing import PIC_PINS, ioapic_pin_of, pic_pin_of
from kvmbox.kvm.vcpu import Vcpu


class MappedRegion(Protocol):
    """Guest RAM as `Vm.map_memory` takes it: `kvmbox.base.memory.MemoryRegion` is one. All in bytes."""

    @property
    def start(self) -> int:
        """Guest-physical address."""
        ...

    @property
    def size(self) -> int:
        """Length."""
        ...

    @property
    def host_address(self) -> int:
        """Host-virtual address; the mapping must outlive the VM."""
        ...


# Levels of a line never change once made, so any thread may pass them at any time.
_LevelPair = tuple[uapi.kvm_irq_level, uapi.kvm_irq_level]
_LINE_LEVELS: Final[tuple[_LevelPair, ...]] = tuple(
    (uapi.kvm_irq_level(gsi, 0), uapi.kvm_irq_level(gsi, 1)) for gsi in range(uapi.KVM_IOAPIC_NUM_PINS)
)


class Vm:
    """One virtual machine. A context manager; closing it closes its vCPUs.

    A refused call raises KvmError that names the ioctl. Calls may come from any thread; the kernel orders
    them. KVM's per-VM state lives until the last descriptor is closed. Guest memory must not be unmapped
    while a vCPU may run, so not before `close` has returned.
    """

    def __init__(self, descriptor: int, vcpu_mmap_size: int) -> None:
        """Take over the VM `descriptor` that KVM_CREATE_VM gave."""
        self._descriptor = descriptor
        self._vcpu_mmap_size = vcpu_mmap_size
        self._vcpus: list[Vcpu] = []
        # The hot path of irq_line: descriptor and request converted once, references made once.
        self._line_arguments = tuple((byref(low), byref(high)) for low, high in _LINE_LEVELS)
        self._c_descriptor = ctypes.c_int(descriptor)
        self._c_irq_line = ctypes.c_ulong(io.KVM_IRQ_LINE)

    def fileno(self) -> int:
        """The descriptor of the virtual machine."""
        return self._descriptor

    def set_user_memory_region(
        self, slot: int, guest_address: int, size: int, host_address: int, *, read_only: bool = False
    ) -> None:
        """Show `size` bytes of this process's memory to the guest; a size of 0 deletes the slot.

        Addresses and size are bytes and multiples of the page size. A guest write to a `read_only` slot
        becomes an MMIO exit. Nothing keeps the host memory alive: unmap it only after `close`.
        """
        # SAFETY: KVM resolves host_address in this process on each guest access, through the page tables and
        # with their rights, so a wrong one gives a failing KVM_RUN rather than corruption of the host.
        region = uapi.kvm_userspace_memory_region(
            slot, uapi.KVM_MEM_READONLY if read_only else 0, guest_address, size, host_address
        )
        io.kvm_call(
            f"set memory slot {slot} ({size:#x} bytes at guest address {guest_address:#x})",
            self._descriptor,
            io.KVM_SET_USER_MEMORY_REGION,
            byref(region),
        )

    def map_memory(self, regions: Iterable[MappedRegion], first_slot: int = 0) -> None:
        """One slot for each region, numbered from `first_slot`."""
        for slot, region in enumerate(regions, first_slot):
            self.set_user_memory_region(slot, region.start, region.size, region.host_address)

    def set_tss_address(self, address: int) -> None:
        """Where VMX without unrestricted guest may put three pages of its own; below 4 GiB, not RAM."""
        io.kvm_call("set the TSS address", self._descriptor, io.KVM_SET_TSS_ADDR, address)

    def set_identity_map_address(self, address: int) -> None:
        """Where VMX without unrestricted guest may put a page table; before the first vCPU."""
        io.kvm_call(
            "set the identity map address",
            self._descriptor,
            io.KVM_SET_IDENTITY_MAP_ADDR,
            byref(c_uint64(address)),
        )

    def create_irqchip(self) -> None:
        """Two 8259s, an IOAPIC and, for each vCPU made later, a local APIC, all in the kernel."""
        io.kvm_call("create the interrupt controllers", self._descriptor, io.KVM_CREATE_IRQCHIP)

    def route_as_pc(self) -> None:
        """Wire line 0, the timer's, to pin 2 of the IOAPIC instead of pin 0, as PCs do it. The rest stays.

        KVM wires it to the pin of its number at first. Right after `create_irqchip` this takes 10 µs; once
        there are vCPUs, it may take milliseconds.
        """
        table = pc_routing()
        io.kvm_call("wire the interrupt lines", self._descriptor, io.KVM_SET_GSI_ROUTING, byref(table))

    def irq_line(self, gsi: int, level: int) -> None:
        """Set interrupt line `gsi` (0..23; ISA IRQ numbers below 16) to 0 or 1.

        Thread safe and free of allocation, but KVM sees one level per line: who shares a line among sources
        must OR them, and call in the order of the OR's changes, that is, under one lock.
        """
        if not 0 <= gsi < uapi.KVM_IOAPIC_NUM_PINS:
            raise ValueError(f"interrupt line {gsi} is not in 0..{uapi.KVM_IOAPIC_NUM_PINS - 1}")
        argument = self._line_arguments[gsi][1 if level else 0]
        if io.raw_ioctl(self._c_descriptor, self._c_irq_line, argument) < 0:
            reason = os.strerror(ctypes.get_errno())
            raise KvmError(f"cannot set interrupt line {gsi}: ioctl KVM_IRQ_LINE: {reason}")

    def register_coalesced(self, address: int, size: int, *, pio: bool) -> None:
        """Collect guest writes to these ports or addresses in the ring of the vCPU mapping, without exits.

        Ports need KVM_CAP_COALESCED_PIO. Whoever handles an exit must drain the ring first.
        """
        zone = uapi.kvm_coalesced_mmio_zone(address, size, int(pio))
        doing = f"coalesce writes to {'port' if pio else 'address'} {address:#x}"
        io.kvm_call(doing, self._descriptor, io.KVM_REGISTER_COALESCED_MMIO, byref(zone))

    def unregister_coalesced(self, address: int, size: int, *, pio: bool) -> None:
        """Writes exit again. KVM ignores a zone that is not registered."""
        zone = uapi.kvm_coalesced_mmio_zone(address, size, int(pio))
        doing = f"stop coalescing writes to {'port' if pio else 'address'} {address:#x}"
        io.kvm_call(doing, self._descriptor, io.KVM_UNREGISTER_COALESCED_MMIO, byref(zone))

    def get_irqchip(self, chip: int) -> uapi.kvm_irqchip:
        """The state of KVM_IRQCHIP_PIC_MASTER, _PIC_SLAVE or _IOAPIC."""
        state = uapi.kvm_irqchip(chip)
        io.kvm_call(f"read interrupt controller {chip}", self._descriptor, io.KVM_GET_IRQCHIP, byref(state))
        return state

    def get_ioapic(self) -> uapi.kvm_ioapic_state:
        """The state of the I/O APIC."""
        return self.get_irqchip(uapi.KVM_IRQCHIP_IOAPIC).ioapic

    def are_masked(self, lines: Iterable[int]) -> bool:
        """Whether no interrupt controller passes on any of these interrupt lines now."""
        from kvmbox.kvm.wakeups import is_masked

        master, slave = (
            self.get_irqchip(chip) for chip in (uapi.KVM_IRQCHIP_PIC_MASTER, uapi.KVM_IRQCHIP_PIC_SLAVE)
        )
        pics, ioapic = (master.pic, slave.pic), self.get_ioapic()
        return all(is_masked(gsi, pics, ioapic) for gsi in lines)

    def set_irqchip(self, state: uapi.kvm_irqchip) -> None:
        """Restore what `get_irqchip` gave."""
        doing = f"set interrupt controller {state.chip_id}"
        io.kvm_call(doing, self._descriptor, io.KVM_SET_IRQCHIP, byref(state))

    def get_clock(self) -> int:
        """kvmclock of this VM, in ns."""
        data = uapi.kvm_clock_data()
        io.kvm_call("read the guest's clock", self._descriptor, io.KVM_GET_CLOCK, byref(data))
        return int(data.clock)

    def set_clock(self, nanoseconds: int) -> None:
        """Set kvmclock to `nanoseconds`."""
        data = uapi.kvm_clock_data(nanoseconds)
        io.kvm_call("set the guest's clock", self._descriptor, io.KVM_SET_CLOCK, byref(data))

    def xsave_size(self) -> int:
        """How many bytes the extended state of a vCPU of this VM may take (KVM_CAP_XSAVE2)."""
        size = io.kvm_call(
            "ask for the size of XSAVE", self._descriptor, io.KVM_CHECK_EXTENSION, uapi.KVM_CAP_XSAVE2
        )
        return max(size, ctypes.sizeof(uapi.kvm_xsave))

    def create_vcpu(self, index: int) -> Vcpu:
        """Virtual CPU `index`; its number is its APIC id. Number 0 is the one that starts runnable."""
        descriptor = io.kvm_call(f"create vCPU {index}", self._descriptor, io.KVM_CREATE_VCPU, index)
        vcpu = Vcpu(descriptor, index, self._vcpu_mmap_size)
        self._vcpus.append(vcpu)
        return vcpu

    def close(self, *, wait: bool = True) -> None:
        """Close the vCPUs and the VM. No thread may be in `Vcpu.run`. Harmless if repeated.

        Without `wait`, return before the kernel has destroyed the VM (see `kvm.background_close`).
        """
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        self._c_descriptor.value = -1
        with ExitStack() as stack:  # all of it happens, even if a vCPU's views are still held
            stack.callback(os.close if wait else abandon, descriptor)
            for vcpu in self._vcpus:
                stack.callback(vcpu.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@lru_cache(maxsize=1)
def pc_routing() -> Any:
    """The kvm_irq_routing of a PC, for all virtual machines: nobody changes it."""
    wires = [wire for gsi in range(uapi.KVM_IOAPIC_NUM_PINS) for wire in _wires(gsi)]
    table = uapi.kvm_irq_routing(len(wires))(len(wires), 0)
    for entry, (gsi, chip, pin) in zip(table.entries, wires, strict=True):
        entry.gsi, entry.type = gsi, uapi.KVM_IRQ_ROUTING_IRQCHIP
        entry.u[0], entry.u[1] = chip, pin
    return table


def _wires(gsi: int) -> list[tuple[int, int, int]]:
    """Where a PC wires an interrupt line to: (line, controller, pin) of each end."""
    ends = []
    pin = pic_pin_of(gsi)
    if pin is not None:
        chip = uapi.KVM_IRQCHIP_PIC_MASTER if pin < PIC_PINS else uapi.KVM_IRQCHIP_PIC_SLAVE
        ends.append((gsi, chip, pin % PIC_PINS))
    pin = ioapic_pin_of(gsi)
    if pin is not None:
        ends.append((gsi, uapi.KVM_IRQCHIP_IOAPIC, pin))
    return ends
