/* The data port, with an item selected that there is not. */
#include "attack.h"

static void begin(uint32_t at)
{
    outw(0x510, 0x3fff);
    while (at--)
        (void)inb(0x511);
}

void take(uint32_t at, uint8_t *bytes, unsigned count)
{
    begin(at);
    while (count--)
        *bytes++ = inb(0x511);
}

void put(uint32_t at, const uint8_t *bytes, unsigned count)
{
    begin(at);
    while (count--)
        outb(0x511, *bytes++);
}

void call(void)
{
    outw(0x510, 0);
}
