"""Structures and constants of <linux/kvm.h> and <asm/kvm.h> (x86), under their C names.

`tests/unit/kvm/test_uapi_layout.py` compares every size, offset and value here with the real headers.
Structures that end in a flexible array have a function (`kvm_msrs`, `kvm_cpuid2`) that makes the
structure for a given number of entries. What no plain run needs is in `uapi_state`, and found here too.
"""

from __future__ import annotations

from ctypes import Structure, c_uint8, c_uint16, c_uint32, c_uint64
from functools import lru_cache
from typing import Any, Final

KVM_API_VERSION: Final = 12

# --- Capabilities (KVM_CHECK_EXTENSION) -------------------------------------------------------------
KVM_CAP_IRQCHIP: Final = 0
KVM_CAP_USER_MEMORY: Final = 3
KVM_CAP_SET_TSS_ADDR: Final = 4
KVM_CAP_EXT_CPUID: Final = 7
KVM_CAP_MP_STATE: Final = 14
KVM_CAP_SET_IDENTITY_MAP_ADDR: Final = 37
KVM_CAP_VCPU_EVENTS: Final = 41
KVM_CAP_MAX_VCPUS: Final = 66
KVM_CAP_TSC_DEADLINE_TIMER: Final = 72
KVM_CAP_SYNC_REGS: Final = 74
KVM_CAP_IMMEDIATE_EXIT: Final = 136
KVM_CAP_COALESCED_PIO: Final = 162
KVM_CAP_SREGS2: Final = 200
KVM_CAP_XSAVE2: Final = 208

# --- Flags and small numbers ------------------------------------------------------------------------
KVM_MEM_READONLY: Final = 1 << 1

KVM_IRQCHIP_PIC_MASTER: Final = 0
KVM_IRQCHIP_PIC_SLAVE: Final = 1
KVM_IRQCHIP_IOAPIC: Final = 2
KVM_IRQCHIPS: Final = (KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC)
KVM_IRQ_ROUTING_IRQCHIP: Final = 1
KVM_IOAPIC_NUM_PINS: Final = 24

KVM_MP_STATE_RUNNABLE: Final = 0
KVM_MP_STATE_UNINITIALIZED: Final = 1
KVM_MP_STATE_INIT_RECEIVED: Final = 2
KVM_MP_STATE_HALTED: Final = 3
KVM_MP_STATE_SIPI_RECEIVED: Final = 4

KVM_VCPUEVENT_VALID_NMI_PENDING: Final = 1 << 0
KVM_VCPUEVENT_VALID_SIPI_VECTOR: Final = 1 << 1

KVM_CPUID_FLAG_SIGNIFCANT_INDEX: Final = 1 << 0  # sic: the header spells it so

KVM_COALESCED_MMIO_PAGE_OFFSET: Final = 2

# --- Exit reasons (kvm_run.exit_reason), without those of other architectures -------------------------
KVM_EXIT_UNKNOWN: Final = 0
KVM_EXIT_EXCEPTION: Final = 1
KVM_EXIT_IO: Final = 2
KVM_EXIT_HYPERCALL: Final = 3
KVM_EXIT_DEBUG: Final = 4
KVM_EXIT_HLT: Final = 5
KVM_EXIT_MMIO: Final = 6
KVM_EXIT_IRQ_WINDOW_OPEN: Final = 7
KVM_EXIT_SHUTDOWN: Final = 8
KVM_EXIT_FAIL_ENTRY: Final = 9
KVM_EXIT_INTR: Final = 10
KVM_EXIT_SET_TPR: Final = 11
KVM_EXIT_TPR_ACCESS: Final = 12
KVM_EXIT_NMI: Final = 16
KVM_EXIT_INTERNAL_ERROR: Final = 17
KVM_EXIT_SYSTEM_EVENT: Final = 24
KVM_EXIT_IOAPIC_EOI: Final = 26
KVM_EXIT_HYPERV: Final = 27
KVM_EXIT_X86_RDMSR: Final = 29
KVM_EXIT_X86_WRMSR: Final = 30
KVM_EXIT_DIRTY_RING_FULL: Final = 31
KVM_EXIT_AP_RESET_HOLD: Final = 32
KVM_EXIT_X86_BUS_LOCK: Final = 33
KVM_EXIT_XEN: Final = 34
KVM_EXIT_NOTIFY: Final = 37
KVM_EXIT_MEMORY_FAULT: Final = 39

KVM_EXIT_IO_IN: Final = 0
KVM_EXIT_IO_OUT: Final = 1

KVM_INTERNAL_ERROR_EMULATION: Final = 1
KVM_INTERNAL_ERROR_SIMUL_EX: Final = 2
KVM_INTERNAL_ERROR_DELIVERY_EV: Final = 3
KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: Final = 4
KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES: Final = 1 << 0

KVM_SYSTEM_EVENT_SHUTDOWN: Final = 1
KVM_SYSTEM_EVENT_RESET: Final = 2
KVM_SYSTEM_EVENT_CRASH: Final = 3
KVM_SYSTEM_EVENT_WAKEUP: Final = 4
KVM_SYSTEM_EVENT_SUSPEND: Final = 5
KVM_SYSTEM_EVENT_SEV_TERM: Final = 6

# --- struct kvm_run -----------------------------------------------------------------------------------
# Read through memoryviews, not as a Structure: a ctypes attribute costs several times an index. Offsets
# in bytes from the start of the mapping; the members of the union by the exit that they belong to.
RUN_IMMEDIATE_EXIT: Final = 1
RUN_EXIT_REASON: Final = 8
RUN_UNION: Final = 32
RUN_UNION_SIZE: Final = 256
RUN_FAIL_ENTRY_REASON: Final = 32
RUN_IO_DIRECTION: Final = 32
RUN_DEBUG_EXCEPTION: Final = 32
RUN_MMIO_PHYS_ADDR: Final = 32
RUN_MMIO_DATA: Final = 40
RUN_INTERNAL_SUBERROR: Final = 32
RUN_INTERNAL_DATA: Final = 40
RUN_EMULATION_FLAGS: Final = 40
RUN_VALID_REGS: Final = 288
RUN_SYNC_RIP: Final = 432
KVM_SYNC_X86_REGS: Final = 1 << 0
RUN_SYSTEM_EVENT_TYPE: Final = 32
RUN_SYSTEM_EVENT_DATA: Final = 40
RUN_MSR_ERROR: Final = 32


def _fields(kind: type[Any], names: str) -> list[tuple[str, type[Any]]]:
    """Members of one type, in order."""
    return [(name, kind) for name in names.split()]


class kvm_regs(Structure):
    """General registers, instruction pointer and flags."""

    _fields_ = _fields(c_uint64, "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags")


class kvm_segment(Structure):
    """A segment register with its hidden part; `limit` is in bytes, whatever `g` says."""

    _fields_ = [
        ("base", c_uint64),
        ("limit", c_uint32),
        ("selector", c_uint16),
        *_fields(c_uint8, "type present dpl db s l g avl unusable padding"),
    ]


class kvm_dtable(Structure):
    """GDTR or IDTR."""

    _fields_ = [("base", c_uint64), ("limit", c_uint16), ("padding", c_uint16 * 3)]


class kvm_sregs(Structure):
    """Segment, table and control registers, EFER and the APIC base."""

    _fields_ = [
        *_fields(kvm_segment, "cs ds es fs gs ss tr ldt"),
        ("gdt", kvm_dtable),
        ("idt", kvm_dtable),
        *_fields(c_uint64, "cr0 cr2 cr3 cr4 cr8 efer apic_base"),
        ("interrupt_bitmap", c_uint64 * 4),
    ]


class kvm_sregs2(Structure):
    """The same without the interrupt, and with the PDPTEs, if `flags` says that they count."""

    _fields_ = [
        *_fields(kvm_segment, "cs ds es fs gs ss tr ldt"),
        ("gdt", kvm_dtable),
        ("idt", kvm_dtable),
        *_fields(c_uint64, "cr0 cr2 cr3 cr4 cr8 efer apic_base flags"),
        ("pdptrs", c_uint64 * 4),
    ]


class kvm_userspace_memory_region(Structure):
    """A memory slot."""

    _fields_ = [
        ("slot", c_uint32),
        ("flags", c_uint32),
        ("guest_phys_addr", c_uint64),
        ("memory_size", c_uint64),
        ("userspace_addr", c_uint64),
    ]


class kvm_irq_level(Structure):
    """The level of an interrupt line. In C, `irq` is a union with the `status` of KVM_IRQ_LINE_STATUS."""

    _fields_ = [("irq", c_uint32), ("level", c_uint32)]


class kvm_coalesced_mmio_zone(Structure):
    """A range whose writes go to the ring instead of exiting. In C, `pio` is a union with `pad`."""

    _fields_ = [("addr", c_uint64), ("size", c_uint32), ("pio", c_uint32)]


class kvm_pic_state(Structure):
    """One 8259."""

    _fields_ = _fields(
        c_uint8,
        "last_irr irr imr isr priority_add irq_base read_reg_select poll special_mask init_state auto_eoi"
        " rotate_on_auto_eoi special_fully_nested_mode init4 elcr elcr_mask",
    )


class kvm_ioapic_state(Structure):
    """The IOAPIC; in C each redirection entry is also a bit field."""

    _fields_ = [
        ("base_address", c_uint64),
        ("ioregsel", c_uint32),
        ("id", c_uint32),
        ("irr", c_uint32),
        ("pad", c_uint32),
        ("redirtbl", c_uint64 * KVM_IOAPIC_NUM_PINS),
    ]


class kvm_irqchip(Structure):
    """One interrupt controller (KVM_IRQCHIP_*). In C, `chip` is a union: see `pic` and `ioapic`."""

    _fields_ = [("chip_id", c_uint32), ("pad", c_uint32), ("chip", c_uint8 * 512)]

    @property
    def pic(self) -> kvm_pic_state:
        """The state as that of an 8259; shares this structure's memory."""
        return kvm_pic_state.from_buffer(self, type(self).chip.offset)

    @property
    def ioapic(self) -> kvm_ioapic_state:
        """The state as that of the IOAPIC; shares this structure's memory."""
        return kvm_ioapic_state.from_buffer(self, type(self).chip.offset)


class kvm_irq_routing_entry(Structure):
    """One wire of an interrupt line. In C, `u` is a union: for KVM_IRQ_ROUTING_IRQCHIP, chip and pin."""

    _fields_ = [*_fields(c_uint32, "gsi type flags pad"), ("u", c_uint32 * 8)]


class kvm_clock_data(Structure):
    """kvmclock: nanoseconds since the VM was made."""

    _fields_ = [
        ("clock", c_uint64),
        ("flags", c_uint32),
        ("pad0", c_uint32),
        ("realtime", c_uint64),
        ("host_tsc", c_uint64),
        ("pad", c_uint32 * 4),
    ]


class kvm_msr_entry(Structure):
    """One model-specific register."""

    _fields_ = [("index", c_uint32), ("reserved", c_uint32), ("data", c_uint64)]


class kvm_cpuid_entry2(Structure):
    """One CPUID leaf or subleaf."""

    _fields_ = [
        *_fields(c_uint32, "function index flags eax ebx ecx edx"),
        ("padding", c_uint32 * 3),
    ]


@lru_cache(maxsize=8)
def kvm_msrs(count: int) -> type[Any]:
    """The type `struct kvm_msrs` with room for `count` entries."""
    entries = ("entries", kvm_msr_entry * count)
    return type("kvm_msrs", (Structure,), {"_fields_": [("nmsrs", c_uint32), ("pad", c_uint32), entries]})


@lru_cache(maxsize=8)
def kvm_msr_list(count: int) -> type[Any]:
    """The type `struct kvm_msr_list` with room for `count` indices."""
    indices = ("indices", c_uint32 * count)
    return type("kvm_msr_list", (Structure,), {"_fields_": [("nmsrs", c_uint32), indices]})


@lru_cache(maxsize=8)
def kvm_irq_routing(count: int) -> type[Any]:
    """The type `struct kvm_irq_routing` with room for `count` entries."""
    entries = ("entries", kvm_irq_routing_entry * count)
    return type(
        "kvm_irq_routing", (Structure,), {"_fields_": [("nr", c_uint32), ("flags", c_uint32), entries]}
    )


@lru_cache(maxsize=8)
def kvm_signal_mask(size: int) -> type[Any]:
    """The type `struct kvm_signal_mask` with a set of `size` bytes: the kernel's has eight on x86-64."""
    return type(
        "kvm_signal_mask", (Structure,), {"_fields_": [("len", c_uint32), ("sigset", c_uint8 * size)]}
    )


USUAL_CPUID_ENTRIES: Final = 128
"""Enough for the leaves of any CPU known: what has fewer shares this type, since to make one takes time."""


@lru_cache(maxsize=8)
def kvm_cpuid2(count: int) -> type[Any]:
    """The type `struct kvm_cpuid2` with room for `count` entries."""
    entries = ("entries", kvm_cpuid_entry2 * count)
    return type(
        "kvm_cpuid2", (Structure,), {"_fields_": [("nent", c_uint32), ("padding", c_uint32), entries]}
    )


TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.kvm.uapi_state import *  # noqa: F403 - each name is found here
else:

    def __getattr__(name):
        """What a plain run does without."""
        from kvmbox.kvm import uapi_state

        return getattr(uapi_state, name)
