/* Multiboot 1: the header of an image (assembly) and the information structure (C). */
#ifndef GUESTS_MULTIBOOT_H
#define GUESTS_MULTIBOOT_H

#define MULTIBOOT_HEADER_MAGIC 0x1badb002
#define MULTIBOOT_MAGIC        0x2badb002 /* in EAX at the entry */
#define MULTIBOOT_FLAGS        0x00000003 /* modules page aligned, memory map wanted */

#ifdef __ASSEMBLER__

/* The linker script puts .multiboot first: the header must lie within the file's first 8192 bytes. */
.macro MULTIBOOT_HEADER
    .section .multiboot, "a"
    .balign 4
    .long MULTIBOOT_HEADER_MAGIC
    .long MULTIBOOT_FLAGS
    .long -(MULTIBOOT_HEADER_MAGIC + MULTIBOOT_FLAGS)
.endm

#else

#include <stdint.h>

#define MULTIBOOT_INFO_MEMORY  0x01
#define MULTIBOOT_INFO_CMDLINE 0x04
#define MULTIBOOT_INFO_MODULES 0x08
#define MULTIBOOT_INFO_MMAP    0x40

/* Every pointer in these structures is a 32-bit physical address. */
struct multiboot_info {
    uint32_t flags;
    uint32_t mem_lower, mem_upper; /* KiB below 640 KiB, KiB above 1 MiB */
    uint32_t boot_device;
    uint32_t cmdline;
    uint32_t mods_count, mods_addr;
    uint32_t syms[4];
    uint32_t mmap_length, mmap_addr;
};

struct multiboot_module {
    uint32_t start, end; /* end is exclusive */
    uint32_t string;
    uint32_t reserved;
};

struct multiboot_mmap_entry {
    uint32_t size; /* of what follows: the next entry is at &base + size */
    uint64_t base, length;
    uint32_t type; /* 1: usable */
} __attribute__((packed));

#endif
#endif
