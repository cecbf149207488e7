/*
 * pvh32: what a loader tells a PVH kernel. Proves the entry that an ELF note names, the machine state there, and the
 * start information. Status 0; 7 if the state or the magic is wrong.
 */
#include "common/command_line.h"
#include "common/console.h"
#include "common/io.h"

#define START_MAGIC    0x336ec578
#define MODULE_PREVIEW 16

/* xen/include/public/arch-x86/hvm/start_info.h, version 1: all addresses are physical. */
struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp, memory_map;
    uint32_t memory_entries, reserved;
};

struct start_module {
    uint64_t start, size, command_line, reserved;
};

struct start_memory {
    uint64_t base, length;
    uint32_t type, reserved;
};

void guest_main(const struct start_info *info);

static void print_modules(const struct start_info *info)
{
    const struct start_module *module = physical((uint32_t)info->module_list);

    for (uint32_t n = 0; n < info->modules; n++, module++) {
        const char *bytes = physical((uint32_t)module->start);

        put_string("module: ");
        put_decimal((uint32_t)module->size, 1);
        put_string(module->start & 4095 ? " bytes, not page aligned, \"" : " bytes, \"");
        put_string(physical((uint32_t)module->command_line));
        put_string("\" |");
        for (uint32_t i = 0; i < module->size && i < MODULE_PREVIEW; i++)
            put_char(bytes[i] >= ' ' && bytes[i] <= '~' ? bytes[i] : '.');
        put_string("|\n");
    }
}

void guest_main(const struct start_info *info)
{
    const struct start_memory *entry = physical((uint32_t)info->memory_map);

    if (info->magic != START_MAGIC || info->version < 1)
        debug_exit(EXIT_BAD_BOOT);
    put_string("start information version ");
    put_decimal(info->version, 1);
    put_string(info->rsdp ? ", with an RSDP\n" : ", without an RSDP\n");
    for (uint32_t n = 0; n < info->memory_entries; n++, entry++) {
        put_string("memory 0x");
        put_hex(entry->base, 12);
        put_string(" + 0x");
        put_hex(entry->length, 12);
        put_string(" type ");
        put_decimal(entry->type, 1);
        put_char('\n');
    }
    put_string("command line \"");
    put_string(physical((uint32_t)info->command_line));
    put_string("\"\n");
    print_modules(info);
    put_string("pvh32: done\n");
}
