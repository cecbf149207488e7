/*
 * memmap: what the boot loader tells a Multiboot kernel. Proves the information structure: memory sizes, memory map,
 * command line, and modules with their bytes. Status 0; 7 if the magic or a pointer's flag is missing.
 */
#include "common/command_line.h"
#include "common/console.h"
#include "common/guest.h"
#include "common/io.h"

#define MODULE_PREVIEW 16

static void print_memory_map(const struct multiboot_info *info)
{
    uint32_t at = info->mmap_addr;

    while (at < info->mmap_addr + info->mmap_length) {
        const struct multiboot_mmap_entry *entry = physical(at);

        put_string("memory 0x");
        put_hex(entry->base, 12);
        put_string(" + 0x");
        put_hex(entry->length, 12);
        put_string(entry->type == 1 ? " usable\n" : " reserved\n");
        at += entry->size + (uint32_t)sizeof entry->size;
    }
}

static void print_modules(const struct multiboot_info *info)
{
    const struct multiboot_module *module = physical(info->mods_addr);

    for (uint32_t n = 0; n < info->mods_count; n++, module++) {
        const char *bytes = physical(module->start);
        uint32_t length = module->end - module->start;
        uint32_t shown = length < MODULE_PREVIEW ? length : MODULE_PREVIEW;

        put_string("module ");
        put_decimal(n, 1);
        put_string(": ");
        put_decimal(length, 1);
        put_string(module->start & 4095 ? " bytes, not page aligned, \"" : " bytes, \"");
        put_string(physical(module->string));
        put_string("\" |");
        for (uint32_t i = 0; i < shown; i++)
            put_char(bytes[i] >= ' ' && bytes[i] <= '~' ? bytes[i] : '.');
        put_string("|\n");
    }
}

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    if (magic != MULTIBOOT_MAGIC || !(info->flags & MULTIBOOT_INFO_MEMORY) || !(info->flags & MULTIBOOT_INFO_MMAP))
        debug_exit(EXIT_BAD_BOOT);

    put_string("lower memory ");
    put_decimal(info->mem_lower, 1);
    put_string(" KiB, upper memory ");
    put_decimal(info->mem_upper, 1);
    put_string(" KiB\n");
    print_memory_map(info);
    if (info->flags & MULTIBOOT_INFO_CMDLINE) {
        put_string("command line \"");
        put_string(physical(info->cmdline));
        put_string("\"\n");
    }
    if (info->flags & MULTIBOOT_INFO_MODULES)
        print_modules(info);
    put_string("memmap: done\n");
}
