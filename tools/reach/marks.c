/*
 * The guest of tools.reach: writes a mark into each MiB of RAM behind its own, says "ready" on COM1, and halts. A mark
 * is eight letters, the number of the MiB, and that number inverted.
 */
#include "common/guest.h"
#include "common/io.h"

#define MIB 0x100000u

struct mark {
    char letters[8];
    uint32_t number, inverted;
};

void guest_main(uint32_t magic, const struct multiboot_info *info)
{
    (void)magic, (void)info;
    for (uint32_t number = 2; number < MEMORY_MIB; number++) {
        volatile struct mark *mark = (struct mark *)(number * MIB + 0x800);

        for (unsigned place = 0; place < 8; place++)
            mark->letters[place] = "KVMREACH"[place];
        mark->number = number;
        mark->inverted = ~number;
    }
    for (const char *letter = "ready\n"; *letter; letter++)
        outb(COM1, (uint8_t)*letter);
    for (;;)
        __asm__ volatile("sti; hlt");
}
