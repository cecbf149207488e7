/* The command line: the image's name, then what --append gave. */
#ifndef GUESTS_COMMAND_LINE_H
#define GUESTS_COMMAND_LINE_H

#include "multiboot.h"
#include <stdint.h>

/* A Multiboot structure or string by its 32-bit physical address. */
static inline const void *physical(uint32_t address)
{
    return (const void *)(uintptr_t)address;
}

/* Argument `index` (0 is the first after the image's name) as a decimal number; `otherwise` where there is none. */
uint32_t decimal_argument(const struct multiboot_info *info, unsigned index, uint32_t otherwise);

#endif
