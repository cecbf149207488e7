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

# --- What firmware leaves in memory ------------------------------------------------------------------
BIOS_DATA_AREA: Final = 0x400
BIOS_DATA_AREA_SIZE: Final = 0x100
EBDA: Final = 0x9FC00  # the extended BIOS data area, the last KiB of conventional memory
FIRMWARE_START: Final = 0xF0000  # reserved up to 1 MiB
FIRMWARE_TABLES: Final = 0xF0000  # ACPI, MP and SMBIOS tables
FIRMWARE_TABLES_END: Final = 0xF8000
BIOS_ROM: Final = 0xF8000  # the built-in BIOS, up to 1 MiB

# --- What kvmbox itself writes into guest memory before the first instruction ------------------------
# The usual place of the boot area (`boot.area`), which moves if an image wants to be there.
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

# --- Memory that KVM wants for itself (VMX without unrestricted guest; Intel SDM vol. 3, 26.3.1) -----
KVM_IDENTITY_MAP_ADDRESS: Final = 0xFFFB_C000
KVM_TSS_ADDRESS: Final = 0xFFFB_D000  # three pages

# --- Memory-mapped devices --------------------------------------------------------------------------
MMIO_UART_BASE: Final = 0xD000_0000  # eight byte registers, as a port UART has them
MMIO_UART_IRQ: Final = 5

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
SHUTDOWN_PORT: Final = 0x8900  # Bochs: the bytes "Shutdown" stop the machine
