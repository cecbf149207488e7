/* What the start code calls. A guest that returns is shut down with status 0. */
#ifndef GUESTS_GUEST_H
#define GUESTS_GUEST_H

#include "multiboot.h"

/* `magic` is MULTIBOOT_MAGIC and `info` the boot information; 0 and NULL in real mode. */
void guest_main(uint32_t magic, const struct multiboot_info *info);

#endif
