/*
 * mmiosweep: addresses where nothing is. Proves that reads of 1, 2, 4 and 8 bytes at any alignment, across a page
 * too, give all ones, that writes are dropped, and that an access half in a device is one half of each. Status 0;
 * 3 on anything else.
 */
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"

#define SPAN 40 /* addresses tried in each hole */

static const uint32_t holes[] = {
    0xc0000000,      /* where RAM must end */
    0xc0000fe0,      /* across a page boundary */
    MMIO_UART + 8,   /* right behind a device */
    0xe0000000,
    0xffffffd0 - SPAN,
};

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

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic, (void)info;
    for (unsigned hole = 0; hole < sizeof holes / sizeof *holes; hole++)
        for (unsigned size = 1; size <= 8; size *= 2)
            for (uintptr_t at = holes[hole]; at < (uintptr_t)holes[hole] + SPAN; at++) {
                uint64_t ones = ~0ull >> (64 - 8 * size);

                expect(at, size, ones);
                write_memory(at, size, 0x0123456789abcdef);
                expect(at, size, ones);
            }

    write_memory(MMIO_UART + UART_SCR, 1, 0x5a);
    expect(MMIO_UART + UART_SCR, 4, 0xffffff5a);

    put_string("mmiosweep: ");
    put_decimal(reads, 1);
    put_string(" reads, ");
    put_decimal(writes, 1);
    put_string(" writes\n");
}
