/*
 * linuxboot: what a loader tells a Linux kernel. A bzImage with no Linux in it: proves the setup header, the 64-bit
 * entry, the boot parameters and the initial RAM disk. Status 0; 7 if the state or the parameters are wrong.
 */
#include "common/console.h"
#include "common/io.h"

/* Offsets in the boot parameters: Documentation/arch/x86/zero-page.rst and boot.rst. */
#define ACPI_RSDP      0x070
#define ALT_MEM_K      0x1e0
#define E820_ENTRIES   0x1e8
#define HEADER_MAGIC   0x202
#define HEADER_VERSION 0x206
#define LOADER_TYPE    0x210
#define RAMDISK_IMAGE  0x218
#define RAMDISK_SIZE   0x21c
#define COMMAND_LINE   0x228
#define E820_TABLE     0x2d0

#define HDRS 0x53726448 /* "HdrS" */

struct e820_entry {
    uint64_t base, length;
    uint32_t type;
} __attribute__((packed));

void guest_main(const uint8_t *params);

static uint32_t word(const uint8_t *params, unsigned offset)
{
    return *(const uint32_t *)(params + offset);
}

void guest_main(const uint8_t *params)
{
    const struct e820_entry *entry = (const void *)(params + E820_TABLE);
    const uint8_t *ramdisk = (const uint8_t *)(uintptr_t)word(params, RAMDISK_IMAGE);
    uint32_t size = word(params, RAMDISK_SIZE), sum = 0;

    if (word(params, HEADER_MAGIC) != HDRS || params[LOADER_TYPE] == 0)
        debug_exit(EXIT_BAD_BOOT);
    put_string("boot protocol ");
    put_decimal(params[HEADER_VERSION + 1], 1);
    put_char('.');
    put_decimal(params[HEADER_VERSION], 2);
    put_string(", loader 0x");
    put_hex(params[LOADER_TYPE], 2);
    put_string(*(const uint64_t *)(params + ACPI_RSDP) ? ", with an RSDP\n" : ", without an RSDP\n");
    for (unsigned n = 0; n < params[E820_ENTRIES]; n++) {
        put_string("memory 0x");
        put_hex(entry[n].base, 12);
        put_string(" + 0x");
        put_hex(entry[n].length, 12);
        put_string(" type ");
        put_decimal(entry[n].type, 1);
        put_char('\n');
    }
    put_string("memory above 1 MiB: ");
    put_decimal(word(params, ALT_MEM_K), 1);
    put_string(" KiB\ncommand line \"");
    put_string((const char *)(uintptr_t)word(params, COMMAND_LINE));
    put_string("\"\n");
    if (size) {
        for (uint32_t i = 0; i < size; i++)
            sum = sum * 31 + ramdisk[i];
        put_string("initial RAM disk: ");
        put_decimal(size, 1);
        put_string((uintptr_t)ramdisk & 4095 ? " bytes, not page aligned, sum 0x" : " bytes, sum 0x");
        put_hex(sum, 8);
        put_char('\n');
    }
    put_string("linuxboot: done\n");
}
