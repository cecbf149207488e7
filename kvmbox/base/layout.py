"""Every guest address, port range and interrupt number, once.

The map follows the PC/AT where the PC/AT has an opinion. Names of ports are those of the datasheets.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
PAGE_SIZE: Final = 4096
SECTOR_SIZE: Final = 512

# --- Physical memory --------------------------------------------------------------------------------
# RAM starts at 0 and skips the hole below 4 GiB, where PCs keep device memory.
MMIO_HOLE_START: Final = 3 * GIB
MMIO_HOLE_END: Final = 4 * GIB

MIN_MEMORY: Final = 1 * MIB
DEFAULT_MEMORY: Final = 128 * MIB
MAX_MEMORY: Final = 64 * GIB

# The legacy video and BIOS area: reported to guests as not usable (Multiboot memory map, E820 habit).
LOW_MEMORY_END: Final = 0xA0000
HIGH_MEMORY_START: Final = 1 * MIB
TEXT_SCREEN: Final = 0xB8000  # 80 x 25 characters with attributes, mode 3 of a VGA
MONOCHROME_SCREEN: Final = 0xB0000  # the same of mode 7
TEXT_SCREEN_SIZE: Final = 32 * KIB

# --- What firmware leaves in memory ------------------------------------------------------------------
BIOS_DATA_AREA: Final = 0x400
BIOS_DATA_AREA_SIZE: Final = 0x100
EBDA: Final = 0x9FC00  # the extended BIOS data area, the last KiB of conventional memory
FIRMWARE_START: Final = 0xF0000  # reserved up to 1 MiB
FIRMWARE_TABLES: Final = 0xF0000  # ACPI, MP and SMBIOS tables
FIRMWARE_TABLES_END: Final = 0xF4000
ACPI_FACS: Final = 0xF0040  # behind the RSDP: whoever resumes from S3 reads its waking vector
BIOS_DATA_END: Final = 0x500
BIOS_ROM: Final = 0xF4000  # the built-in BIOS, up to 1 MiB

# --- What kvmbox itself writes into guest memory before the first instruction ------------------------
# The usual place of the boot area (`boot.boot_area`), which moves if an image wants to be there.
BOOT_AREA_START: Final = 0x1000
BOOT_AREA_END: Final = 0xC000

# Selectors in the GDT of the boot area.
GDT_CODE32: Final = 0x08
GDT_DATA32: Final = 0x10
GDT_CODE64: Final = 0x18
GDT_DATA64: Final = 0x20
GDT_USER_DATA: Final = 0x28
GDT_USER_CODE64: Final = 0x30

REAL_MODE_LOAD_ADDRESS: Final = 0x7C00
BOOT_SECTOR: Final = 0x7C00  # where a BIOS loads it

# --- Memory that KVM wants for itself (VMX without unrestricted guest; Intel SDM vol. 3, 26.3.1) -----
KVM_IDENTITY_MAP_ADDRESS: Final = 0xFEFF_C000
KVM_TSS_ADDRESS: Final = 0xFEFF_D000  # three pages

# --- Firmware images -----------------------------------------------------------------------------------
MAX_FIRMWARE: Final = 16 * MIB  # it ends at 4 GiB
LOW_FIRMWARE: Final = 256 * KIB  # so much of its end is also below 1 MiB

# --- Memory-mapped devices --------------------------------------------------------------------------
MMIO_UART_BASE: Final = 0xD000_0000  # eight byte registers, as a port UART has them
MMIO_UART_IRQ: Final = 5

VIRTIO_BASE: Final = 0xD000_1000  # the registers of the first virtio device, and then of the others
VIRTIO_SIZE: Final = 0x200
VIRTIO_IRQS: Final = (10, 11, 7, 6, 20, 21, 22, 23)
"""The line of each virtio device: those of ISA first, which also guests without an I/O APIC have."""

PCI_MEMORY: Final = 0xFE00_0000  # the same of their memory: xv6 and its like map devices from here on
PCI_MEMORY_END: Final = 0xFEC0_0000
PIRQ_LINES: Final = (10, 10, 11, 11)
"""The ISA interrupt of each of PCI's four, as firmware routes them."""
PIRQ_CHOICES: Final = (3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15)
"""Those that the guest may route them to."""

# --- The frame buffer, which a linear mode of the display shows -----------------------------------------
FRAME_BUFFER: Final = 0xE000_0000
FRAME_BUFFER_SIZE: Final = 16 * MIB
VIDEO_WINDOW_SIZE: Final = 64 * KIB  # so much of it is at VGA_MEMORY, for guests in real mode

# --- The chip set's memory: APICs, HPET, flash, and what KVM wants for itself ------------------------
CHIP_SET_START: Final = 0xFEC0_0000  # up to 4 GiB
IO_APIC_BASE: Final = 0xFEC0_0000
HPET_BASE: Final = 0xFED0_0000
HPET_SIZE: Final = 1 * KIB
HPET_BLOCK_ID: Final = 0x8086_A201  # Intel, legacy replacement, 64-bit counter, three timers, revision 1
HPET_IRQS: Final = (16, 17, 18, 19, 20, 21, 22, 23)  # pins of the I/O APIC behind those of ISA
LOCAL_APIC_BASE: Final = 0xFEE0_0000
LOCAL_APIC_MESSAGES: Final = 1 << 20  # so many bytes from there on take messages (Intel SDM vol. 3, 11.11.1)

# --- I/O ports --------------------------------------------------------------------------------------
UART_PORT_COUNT: Final = 8
COM_PORTS: Final = {"COM1": 0x3F8, "COM2": 0x2F8, "COM3": 0x3E8, "COM4": 0x2E8}
COM_IRQS: Final = {"COM1": 4, "COM2": 3, "COM3": 4, "COM4": 3}

PIT_PORT: Final = 0x40  # 0x40..0x43
PIT_PORT_COUNT: Final = 4
PIT_IRQ: Final = 0
SYSTEM_CONTROL_B_PORT: Final = 0x61  # gate 2, speaker, refresh toggle, OUT 2

I8042_DATA_PORT: Final = 0x60
I8042_COMMAND_PORT: Final = 0x64
I8042_IRQ: Final = 1
I8042_AUX_IRQ: Final = 12
SYSTEM_CONTROL_A_PORT: Final = 0x92  # fast reset, A20

RTC_INDEX_PORT: Final = 0x70
RTC_DATA_PORT: Final = 0x71
RTC_IRQ: Final = 8

POST_PORT: Final = 0x80
DEBUG_EXIT_PORT: Final = 0xF4  # QEMU's isa-debug-exit by default
DEBUG_EXIT_PORT_COUNT: Final = 4
DEBUGCON_PORTS: Final = (0xE9, 0x402)  # Bochs/QEMU debug console, SeaBIOS debug port
EXTRA_DEBUG_EXIT_PORT: Final = 0x501  # where Solo5, Unikraft and Nanos have isa-debug-exit
PVPANIC_PORT: Final = 0x505
FW_CFG_PORT: Final = 0x510  # selector; the data port is the next one
FW_CFG_DMA_PORT: Final = 0x514  # 8 bytes
PCI_ADDRESS_PORT: Final = 0xCF8  # 4 bytes of PCI's address register, with the reset control in them
RESET_CONTROL_PORT: Final = 0xCF9
PCI_PORT_COUNT: Final = 8  # address and data of PCI's configuration mechanism #1
PCI_PORTS: Final = 0xC000  # where firmware begins to place the ports of PCI functions, and where it ends
PCI_PORTS_END: Final = 0x1_0000
INTERRUPT_CONTROLLER_PORTS: Final = ((0x20, 2), (0xA0, 2), (0x4D0, 2))  # KVM's own: first port, and how many

# kvm-unit-tests' pc-testdev (with --testdev)
TESTDEV_PORT: Final = 0xE0  # 4 bytes of scratch, again at 0xE8, and at 0xE4 the page to flush
TESTDEV_IRQ_PORT: Final = 0x2000  # one port for each of the 24 lines
TESTDEV_IRQ_COUNT: Final = 24
TESTDEV_MEMORY: Final = 0xFF00_0000
TESTDEV_MEMORY_SIZE: Final = 64 * KIB

VGA_FIRST_PORT: Final = 0x3B0  # of all that a VGA may have: its offset 0
VGA_MONOCHROME_PORTS: Final = ((0x3B4, 2), (0x3BA, 1))  # CRT controller and status of a VGA in mode 7
VGA_CRTC_PORTS: Final = (0x3D4, 0x3D5)  # index and data of the CRT controller
VGA_MEMORY: Final = 0xA0000  # the window to the memory of a VGA
VGA_MEMORY_SIZE: Final = 128 * KIB
VGA_LATE_WRITES: Final = 1 << 24  # a register on no bus: see devices.vga.model
VGA_PORTS: Final = ((0x3C0, 16), (0x3D4, 2), (0x3DA, 1))  # first port, and how many

VBE_PORT: Final = 0x1CE  # index, of two bytes; data behind it, and again behind that
VBE_PORT_COUNT: Final = 4

BIOS_REPORT_PORT: Final = 0x9200  # what the built-in BIOS has behind it: guests/common/ports.h has the same
BIOS_REPORT_PORT_COUNT: Final = 8
BIOS_TEXT_PORT: Final = 0x9208
BOOT_DISK_PORT: Final = 0x9210
BOOT_DISK_PORT_COUNT: Final = 36
SHUTDOWN_PORT: Final = 0x8900  # Bochs: the bytes "Shutdown" stop the machine

# The two ATA channels of a PC: data and task file, alternate status and device control, interrupt line.
IDE_CHANNELS: Final = ((0x1F0, 0x3F6, 14), (0x170, 0x376, 15))
IDE_PORT_COUNT: Final = 8

# ACPI power management, where QEMU's Q35 has it.
PM1_EVENT_PORT: Final = 0x600
PM1_EVENT_PORT_COUNT: Final = 4  # status and enable
PM1_CONTROL_PORT: Final = 0x604
PM1_CONTROL_PORT_COUNT: Final = 2
PM_TIMER_PORT: Final = 0x608
PM_TIMER_PORT_COUNT: Final = 4
PM_PORT_COUNT: Final = 12  # with two ports between control and timer that are nobody's
SCI_IRQ: Final = 9
SLEEP_TYPES: Final = {"S3": 1, "S5": 0}
"""SLP_TYP of PM1 control for each sleep state that the machine has: Q35's."""
BOCHS_POWER_OFF_PORT: Final = 0xB004  # PM1a control of Bochs and of old QEMU
VIRTUALBOX_POWER_OFF_PORT: Final = 0x4004  # PM1a control of VirtualBox


def ram_ranges(memory_size: int) -> list[tuple[int, int]]:
    """The (start, size) pairs that `memory_size` bytes of RAM take, skipping the hole below 4 GiB."""
    low = min(memory_size, MMIO_HOLE_START)
    ranges = [(0, low)]
    if memory_size > low:
        ranges.append((MMIO_HOLE_END, memory_size - low))
    return ranges
