/* Multiboot 2: magic numbers (assembly), and the information tags (C). */
#ifndef GUESTS_MULTIBOOT2_H
#define GUESTS_MULTIBOOT2_H

#define MULTIBOOT2_HEADER_MAGIC 0xe85250d6
#define MULTIBOOT2_MAGIC        0x36d76289 /* in EAX at the entry */

/* Types of information tags. */
#define MB2_END          0
#define MB2_COMMAND_LINE 1
#define MB2_LOADER_NAME  2
#define MB2_MODULE       3
#define MB2_BASIC_MEMORY 4
#define MB2_MEMORY_MAP   6
#define MB2_FRAMEBUFFER  8
#define MB2_ELF_SECTIONS 9
#define MB2_ACPI_OLD     14
#define MB2_ACPI_NEW     15
#define MB2_LOAD_BASE    21

#ifndef __ASSEMBLER__

#include <stdint.h>

struct mb2_info {
    uint32_t total_size, reserved;
};

/* `size` counts these two fields, and not the padding to the next multiple of 8. */
struct mb2_tag {
    uint32_t type, size;
};

struct mb2_module {
    struct mb2_tag tag;
    uint32_t start, end;
    char string[];
};

struct mb2_basic_memory {
    struct mb2_tag tag;
    uint32_t lower, upper; /* KiB below 640 KiB, KiB above 1 MiB */
};

struct mb2_memory_map {
    struct mb2_tag tag;
    uint32_t entry_size, entry_version;
};

struct mb2_memory_entry {
    uint64_t base, length;
    uint32_t type, reserved;
};

struct mb2_framebuffer {
    struct mb2_tag tag;
    uint64_t address;
    uint32_t pitch, width, height;
    uint8_t bits, type;
    uint16_t reserved;
} __attribute__((packed));

struct mb2_elf_sections {
    struct mb2_tag tag;
    uint32_t count, entry_size, names;
};

struct elf32_section {
    uint32_t name, type, flags, address, offset, size, link, info, align, entry_size;
};

#endif
#endif
