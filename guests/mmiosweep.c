/*
 * mmiosweep: addresses where nothing is. Proves that reads of 1, 2, 4 and 8 bytes at any alignment, across a page
 * too, give all ones, that writes are dropped, and that an access half in a device is one half of each. First a close
 * look at the edges of RAM and of devices, then one at every fourth megabyte from the end of RAM to 4 GiB, or at every
 * Nth with "--append N". Status 0; 3 on anything else.
 */
#include "common/command_line.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"

#define SPAN   40 /* addresses tried in each hole */
#define MIB    0x100000u
#define STRIDE 4 /* megabytes */

static const uint32_t holes[] = {
    0xbfffffe0,      /* across the place where RAM must end */
    0xc0000000,
    0xc0000fe0,      /* across a page boundary */
    MMIO_UART + 8,   /* right behind a device */
    0xe0000000,
    0xffffffd0 - SPAN,
};

/* What answers there: the interrupt controllers, which are the kernel's, and the UART. */
static const uint32_t devices[] = {0xfec00000, 0xfed00000, 0xfee00000, MMIO_UART};

static uint32_t reads, writes;

static uint64_t read_memory(uintptr_t address, unsigned size)
{
    reads++;
    switch (size) {
    case 1:
        return *(volatile uint8_t *)address;
    case 2:
        return *(volatile uint16_t *)address;
    case 4:
        return *(volatile uint32_t *)address;
    default:
        return *(volatile uint64_t *)address;
    }
}

static void write_memory(uintptr_t address, unsigned size, uint64_t value)
{
    writes++;
    switch (size) {
    case 1:
        *(volatile uint8_t *)address = (uint8_t)value;
        break;
    case 2:
        *(volatile uint16_t *)address = (uint16_t)value;
        break;
    case 4:
        *(volatile uint32_t *)address = (uint32_t)value;
        break;
    default:
        *(volatile uint64_t *)address = value;
    }
}

static void expect(uintptr_t address, unsigned size, uint64_t wanted)
{
    uint64_t got = read_memory(address, size);

    if (got == wanted)
        return;
    put_string("0x");
    put_hex(address, 8);
    put_string(", ");
    put_decimal(size, 1);
    put_string(" bytes: 0x");
    put_hex(got, 2 * size);
    put_string(", not 0x");
    put_hex(wanted, 2 * size);
    put_char('\n');
    fail("mmiosweep");
}

static void try_address(uintptr_t at)
{
    for (unsigned size = 1; size <= 8; size *= 2) {
        uint64_t ones = ~0ull >> (64 - 8 * size);

        expect(at, size, ones);
        write_memory(at, size, 0x0123456789abcdef);
        expect(at, size, ones);
    }
}

static int is_device(uint32_t address)
{
    for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++)
        if (address == devices[i])
            return 1;
    return 0;
}

/* At each `stride` megabytes, at an address within the first one that is another one each time. */
static void sweep_all(uint64_t from, uint32_t stride)
{
    uint32_t turn = 0;

    for (uint64_t at = from; at < 1ull << 32; at += (uint64_t)stride * MIB, turn++)
        if (!is_device((uint32_t)at))
            try_address(at + (turn * 0x1237 & 0xffff0) + (turn & 15));
}

/* The device itself in sizes that it does not know: bytes, low first, each for itself. */
static void sweep_device(void)
{
    for (unsigned offset = 0; offset < 8; offset++)
        for (unsigned size = 2; size <= 8; size *= 2)
            read_memory(MMIO_UART + offset, size);
    for (unsigned size = 2; size <= 8; size *= 2)
        write_memory(MMIO_UART + UART_SCR, size, 0x33);
    expect(MMIO_UART + UART_SCR, 1, 0x33);
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    uint64_t end_of_ram = MIB + (uint64_t)info->mem_upper * 1024;
    uint32_t stride = decimal_argument(info, 0, STRIDE);

    (void)magic;
    for (unsigned hole = 0; hole < sizeof holes / sizeof *holes; hole++)
        for (uintptr_t at = holes[hole]; at < (uintptr_t)holes[hole] + SPAN; at++)
            if (at >= end_of_ram)
                try_address(at);
    sweep_all(end_of_ram, stride ? stride : STRIDE);
    sweep_device();

    write_memory(MMIO_UART + UART_SCR, 1, 0x5a);
    expect(MMIO_UART + UART_SCR, 4, 0xffffff5a);

    put_string("mmiosweep: ");
    put_decimal(reads, 1);
    put_string(" reads, ");
    put_decimal(writes, 1);
    put_string(" writes\n");
}
