/* The window of 128 KiB at 0xA0000, whose second half is behind the planes. */
#include "attack.h"

#define WINDOW ((volatile uint8_t *)0xa0000)

static void graphics(uint8_t index, uint8_t value)
{
    outb(0x3ce, index);
    outb(0x3cf, value);
}

static void sequencer(uint8_t index, uint8_t value)
{
    outb(0x3c4, index);
    outb(0x3c5, value);
}

/* The window, planes one by one, and no odd/even, rotation, latch or mask. */
static void begin(void)
{
    sequencer(4, 6);
    graphics(1, 0);
    graphics(3, 0);
    graphics(5, 0);
    graphics(6, 1);
    graphics(8, 0xff);
}

void take(uint32_t at, uint8_t *bytes, unsigned count)
{
    begin();
    for (unsigned index = 0; index < count; index++) {
        graphics(4, (uint8_t)(at + index & 3));
        bytes[index] = WINDOW[(at + index) / 4];
    }
}

void put(uint32_t at, const uint8_t *bytes, unsigned count)
{
    begin();
    for (unsigned index = 0; index < count; index++) {
        sequencer(2, (uint8_t)(1 << (at + index & 3)));
        WINDOW[(at + index) / 4] = bytes[index];
    }
}

void call(void)
{
    outb(0x3c6, 0xff);
}
