/* A thousand chains in a queue of eight. */
#include "virtio.h"

#define CHAINS 1000

static uint8_t sent[12 + 64];

void call(void)
{
    start(1, 2, ENTRIES);
    for (uint32_t at = 0; at < ENTRIES; at++)
        describe(1, at, sent, sizeof sent, 0);
    queues[1].available.index = CHAINS;
    *reg(0x50) = 1;
    while (*(volatile uint16_t *)&queues[1].used.index != CHAINS && !(*reg(0x70) & 0x40))
        ;
    say(*reg(0x70) & 0x40 ? "the queue is dead\n" : "1000 frames of 8\n");
}
