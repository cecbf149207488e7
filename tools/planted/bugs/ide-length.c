/* READ SECTORS from a place where the disk has none. */
#include "attack.h"

void call(void)
{
    outb(0x1f6, 0xe0);
    outb(0x1f2, 1);
    outb(0x1f3, 0);
    outb(0x1f4, 0);
    outb(0x1f5, 0x10);
    outb(0x1f7, 0x20);
    while (inb(0x1f7) & 0x80)
        ;
    say(inb(0x1f7) & 0x08 ? "a sector\n" : "an error\n");
}
