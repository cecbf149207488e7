/*
 * mb2: what the boot loader tells a Multiboot 2 kernel. Proves the header's tags, the entry state, and every
 * information tag. Status 0; 7 if the magic, the alignment or the end of the information is wrong.
 */
#include "common/command_line.h"
#include "common/console.h"
#include "common/io.h"
#include "common/multiboot2.h"

#define MODULE_PREVIEW 16
#define SHT_STRTAB     3

void guest_main(uint32_t magic, const struct mb2_info *info);

static void print_bytes(const char *bytes, uint32_t count)
{
    put_char('|');
    for (uint32_t i = 0; i < count; i++)
        put_char(bytes[i] >= ' ' && bytes[i] <= '~' ? bytes[i] : '.');
    put_char('|');
}

static void print_string(const char *what, const char *text)
{
    put_string(what);
    put_string(" \"");
    put_string(text);
    put_string("\"\n");
}

static void print_module(const struct mb2_module *module)
{
    uint32_t length = module->end - module->start;

    put_string("module: ");
    put_decimal(length, 1);
    put_string(module->start & 4095 ? " bytes, not page aligned, \"" : " bytes, \"");
    put_string(module->string);
    put_string("\" ");
    print_bytes(physical(module->start), length < MODULE_PREVIEW ? length : MODULE_PREVIEW);
    put_char('\n');
}

static void print_memory_map(const struct mb2_memory_map *map)
{
    const char *end = (const char *)map + map->tag.size;

    for (const char *at = (const char *)(map + 1); at < end; at += map->entry_size) {
        const struct mb2_memory_entry *entry = (const void *)at;

        put_string("memory 0x");
        put_hex(entry->base, 12);
        put_string(" + 0x");
        put_hex(entry->length, 12);
        put_string(" type ");
        put_decimal(entry->type, 1);
        put_char('\n');
    }
}

static void print_framebuffer(const struct mb2_framebuffer *screen)
{
    put_string("screen at 0x");
    put_hex(screen->address, 5);
    put_string(", ");
    put_decimal(screen->width, 1);
    put_string(" x ");
    put_decimal(screen->height, 1);
    put_string(", pitch ");
    put_decimal(screen->pitch, 1);
    put_string(", type ");
    put_decimal(screen->type, 1);
    put_char('\n');
}

/* The name of the section that has the names says whether sections without an address were loaded. */
static void print_sections(const struct mb2_elf_sections *sections)
{
    const struct elf32_section *section = (const void *)(sections + 1);
    const struct elf32_section *names = section + sections->names;

    put_string("sections of ");
    put_decimal(sections->entry_size, 1);
    put_string(" bytes; their names are in \"");
    if (names->type == SHT_STRTAB && names->address)
        put_string((const char *)physical(names->address) + names->name);
    put_string("\"\n");
}

static void print_tag(const struct mb2_tag *tag)
{
    const void *content = tag + 1;

    switch (tag->type) {
    case MB2_COMMAND_LINE:
        print_string("command line", content);
        break;
    case MB2_LOADER_NAME:
        print_string("loader", content);
        break;
    case MB2_MODULE:
        print_module((const void *)tag);
        break;
    case MB2_BASIC_MEMORY:
        put_string("lower memory ");
        put_decimal(((const struct mb2_basic_memory *)tag)->lower, 1);
        put_string(" KiB, upper memory ");
        put_decimal(((const struct mb2_basic_memory *)tag)->upper, 1);
        put_string(" KiB\n");
        break;
    case MB2_MEMORY_MAP:
        print_memory_map((const void *)tag);
        break;
    case MB2_FRAMEBUFFER:
        print_framebuffer((const void *)tag);
        break;
    case MB2_ELF_SECTIONS:
        print_sections((const void *)tag);
        break;
    case MB2_ACPI_OLD:
    case MB2_ACPI_NEW:
        put_string("RSDP, ");
        put_decimal(tag->size - 8, 1);
        put_string(" bytes ");
        print_bytes(content, 8);
        put_char('\n');
        break;
    case MB2_LOAD_BASE:
        put_string("load base 0x");
        put_hex(*(const uint32_t *)content, 8);
        put_char('\n');
        break;
    default:
        put_string("tag ");
        put_decimal(tag->type, 1);
        put_char('\n');
    }
}

void guest_main(uint32_t magic, const struct mb2_info *info)
{
    const char *at = (const char *)(info + 1);
    const char *end = (const char *)info + info->total_size;
    const struct mb2_tag *tag = (const void *)at;

    if (magic != MULTIBOOT2_MAGIC || (uint32_t)info & 7)
        debug_exit(EXIT_BAD_BOOT);
    for (; tag->type != MB2_END; tag = (const void *)at) {
        print_tag(tag);
        at += (tag->size + 7) & ~7u;
    }
    if (at + tag->size != end)
        debug_exit(EXIT_BAD_BOOT);
    put_string("mb2: done\n");
}
